/** How fast items are read, beside the bare bytes; the figures are printed, and nothing depends on them. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Client } from "../src/index.js";
import type { Served } from "./server.js";
import { serve } from "./server.js";

const ITEMS = 10_000;
const ROUNDS = 3;

let server: Served;
before(async () => void (server = await serve()));
after(() => server.stop());

/** Read the same stream as bytes, and do nothing with them. */
async function bare(): Promise<void> {
  const body = JSON.stringify({ command: "count", input: { n: ITEMS }, is_stream: true });
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${server.url}/v2/execute`, { method: "POST", body, headers });
  let size = 0;
  for await (const bytes of response.body ?? assert.fail()) size += bytes.length;
  assert.ok(size > 100 * ITEMS);
}

async function read(client: Client): Promise<void> {
  let expected = 0;
  for await (const { i } of client.stream<{ i: number }>("count", { n: ITEMS })) assert.equal(i, expected++);
  assert.equal(expected, ITEMS);
}

/** Return the best rate of a few rounds, in items per second. */
async function rate(work: () => Promise<void>): Promise<number> {
  let best = Infinity;
  for (let round = 0; round < ROUNDS; round += 1) {
    const begun = performance.now();
    await work();
    best = Math.min(best, performance.now() - begun);
  }
  return Math.round((1000 * ITEMS) / best);
}

test("10,000 items come whole and in order, at a rate that is told", async () => {
  const plain = await rate(bare);
  for (const scheme of ["http", "ws"]) {
    const client = new Client(server.url.replace("http", scheme));
    const items = await rate(() => read(client));
    client.close();
    console.log(`# ${scheme}: ${items} items/s; the bare bytes over HTTP: ${plain}/s; ${(items / plain).toFixed(2)} of it`);
  }
});
