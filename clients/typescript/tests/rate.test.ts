/** How fast items are read, beside the bare bytes; the figures are printed, and nothing depends on them. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Client } from "../src/index.js";
import type { Served } from "./server.js";
import { serve } from "./server.js";

const ITEMS = 10_000;
const ROUNDS = 9;

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
  for await (const { i } of client.stream<{ i: number }>("count", { n: ITEMS })) {
    if (i !== expected++) assert.fail(`${i} came where ${expected - 1} was due`); // cheaper than an assertion
  }
  assert.equal(expected, ITEMS);
}

/** Return the seconds that `work` took, and how many of them the processor was at it. */
async function spent(work: () => Promise<void>): Promise<readonly [number, number]> {
  const [begun, used] = [performance.now(), process.cpuUsage()];
  await work();
  const { user, system } = process.cpuUsage(used);
  return [(performance.now() - begun) / 1e3, (user + system) / 1e6];
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

test("10,000 items come whole and in order, at a rate that is told", async () => {
  const clients = ["http", "ws"].map((scheme) => new Client(server.url.replace("http", scheme)));
  const works = [bare, ...clients.map((client) => () => read(client))];
  const rounds: (readonly (readonly [number, number])[])[] = [];
  for (let round = 0; round <= ROUNDS; round += 1) {
    const took: (readonly [number, number])[] = [];
    for (const work of works) took.push(await spent(work));
    if (round > 0) rounds.push(took); // the first warms up
  }
  for (const client of clients) client.close();
  for (const [index, name] of ["bare fetch", "http", "ws"].entries()) {
    const of = (pick: (took: (typeof rounds)[0]) => number): number => median(rounds.map(pick));
    const wall = of((took) => took[index]?.[0] ?? NaN);
    const cpu = of((took) => took[index]?.[1] ?? NaN);
    const ratio = of((took) => (took[0]?.[0] ?? NaN) / (took[index]?.[0] ?? NaN));
    const [rate, each] = [Math.round(ITEMS / wall), ((1e6 * cpu) / ITEMS).toFixed(2)];
    console.log(`# ${name}: ${rate} items/s, ${ratio.toFixed(2)} of the bare bytes; ${each} µs of processor each`);
  }
});
