/** P12: cut at every byte, a stream is read on without losing or repeating an item. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { CallError, Client, ConnectionFailed, StreamTruncated } from "../src/index.js";
import type { CallOptions, ClientOptions } from "../src/index.js";
import { Relay } from "./relay.js";
import type { Served } from "./server.js";
import { serve } from "./server.js";

const WANTED = [{ i: 0 }, { i: 1 }];
const AT_ONCE = 16;
const retry = { attempts: 4, baseS: 0.001, capS: 0.01 };

let server: Served;
before(async () => void (server = await serve()));
after(() => server.stop());

/** What a stream gave through a relay, and how it ended. */
interface Read {
  readonly items: unknown[];
  readonly lastSeq: number;
  readonly error: unknown;
  readonly relay: Relay;
}

async function readThrough(
  relay: Relay,
  scheme: string,
  options: CallOptions,
  settings: ClientOptions = {},
): Promise<Read> {
  const client = new Client((await relay.listen()).replace("http", scheme), { retry, ...settings });
  const stream = client.stream("count", { n: WANTED.length }, options);
  const items: unknown[] = [];
  let error: unknown;
  try {
    for await (const item of stream) items.push(item);
  } catch (caught) {
    error = caught;
  }
  client.close();
  await relay.close();
  return { items, lastSeq: stream.lastSeq, error, relay };
}

/** Cut at every offset of what is sent for a whole stream; hand each outcome to `check`. */
async function cutEverywhere(
  scheme: string,
  options: () => CallOptions,
  check: (read: Read, offset: number) => void,
  settings: ClientOptions = {},
): Promise<void> {
  const target = new URL(server.url);
  const whole = await readThrough(new Relay(target), scheme, options(), settings);
  assert.deepEqual(whole.items, WANTED);
  const total = whole.relay.carried;
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let offset = next++; offset < total; offset = next++) {
      check(await readThrough(new Relay(target, offset), scheme, options(), settings), offset);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  console.log(`# ${scheme}: cut at each of ${total} bytes`);
}

test("over HTTP, a call with an idempotency key survives a cut at every byte", async () => {
  let resumed = 0;
  const keyed = (): CallOptions => ({ idempotencyKey: crypto.randomUUID(), correlationId: "c" });
  await cutEverywhere("http", keyed, ({ items, error, lastSeq, relay }, offset) => {
    assert.equal(error, undefined, `cut at ${offset}: ${String(error)}`);
    assert.deepEqual(items, WANTED, `cut at ${offset}`);
    assert.equal(lastSeq, 3);
    resumed += relay.connections > 1 ? 1 : 0;
  });
  assert.ok(resumed > 500, `only ${resumed} cuts were noticed`);
});

test("so it does where streams are events", async () => {
  const keyed = (): CallOptions => ({ idempotencyKey: crypto.randomUUID(), correlationId: "c" });
  const check = ({ items, error, lastSeq }: Read, offset: number): void => {
    assert.equal(error, undefined, `cut at ${offset}: ${String(error)}`);
    assert.deepEqual([items, lastSeq], [WANTED, 3], `cut at ${offset}`);
  };
  await cutEverywhere("http", keyed, check, { form: "sse" });
});

test("over WebSocket, so does a call that has a name of its own; where it is not known there, that is told", async () => {
  let [resumed, unknown] = [0, 0];
  const grace = (): CallOptions => ({ onDisconnect: { graceS: 5 } });
  await cutEverywhere("ws", grace, ({ items, error, lastSeq, relay }, offset) => {
    if (error !== undefined) {
      assert.ok(error instanceof ConnectionFailed && error.sent, `cut at ${offset}: ${String(error)}`);
      assert.equal(lastSeq, -1, `cut at ${offset}`);
      unknown += 1; // the server had not read the request by then
      return;
    }
    assert.deepEqual(items, WANTED, `cut at ${offset}`);
    assert.equal(lastSeq, 3);
    resumed += relay.connections > 1 ? 1 : 0;
  });
  assert.ok(resumed > 300 && unknown < 50, `${resumed} were read on, ${unknown} not known`);
});

for (const scheme of ["http", "ws"]) {
  test(`over ${scheme}, a stream that cannot be read on is truncated`, async () => {
    const relay = new Relay(new URL(server.url), 700, true);
    const { error } = await readThrough(relay, scheme, { taskId: `gone-${scheme}` });
    assert.ok(error instanceof StreamTruncated, String(error));
    assert.match(error.message, /gone-\w+ ended after frame \d/);
    assert.ok(error.cause instanceof ConnectionFailed);
  });
}

test("a stream of a server that forgot the call is truncated, and says why", async () => {
  const accepted = JSON.stringify({ type: "task", status: "accepted", task_id: "a", seq: 0, request_id: "b" });
  const asked: string[] = [];
  const client = new Client("http://forgetful.test", {
    retry,
    fetch: async (url) => {
      asked.push(String(url));
      if (asked.length === 1) {
        return new Response(`${accepted}\n`, { headers: { "content-type": "application/x-ndjson" } });
      }
      const envelope = { type: "task", status: "error", error: "no task b", code: "not_found", retryable: false };
      return new Response(JSON.stringify(envelope), { status: 404 });
    },
  });
  const read = async (): Promise<void> => {
    for await (const item of client.stream("count")) assert.fail(String(item));
  };
  await assert.rejects(read, (error) => {
    assert.ok(error instanceof StreamTruncated);
    assert.equal((error.cause as CallError).code, "not_found");
    return true;
  });
  assert.equal(asked[1], "http://forgetful.test/tasks/b/events?after=0");
});
