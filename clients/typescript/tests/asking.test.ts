/** What is sent, and when it is sent again; the server is a function here. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { CallError, Client, ConnectionFailed, RemoteProtocolError } from "../src/index.js";
import { LineSplitter } from "../src/lines.js";
import { PacketReader } from "../src/packet.js";
import { ROOT } from "./server.js";

const retry = { attempts: 3, baseS: 0.001, capS: 1 };
const DONE = JSON.stringify({ type: "task", status: "completed", data: 1, task_id: "t", seq: 1 });

type Answer = () => Response;

/** Return a client whose requests are answered in turn, and the requests it has made. */
function answered(...answers: Answer[]): [Client, { url: string; init: RequestInit }[]] {
  const requests: { url: string; init: RequestInit }[] = [];
  const fetch: typeof globalThis.fetch = async (url, init) => {
    requests.push({ url: String(url), init: init ?? {} });
    return (answers.shift() ?? assert.fail("one request too many"))();
  };
  return [new Client("http://server.test/", { apiKey: "secret", retry, fetch }), requests];
}

function refused(status: number, code: string, more: {} = {}): Answer {
  const envelope = { type: "task", status: "error", error: `it is ${code}`, code, ...more };
  return () => new Response(JSON.stringify(envelope), { status });
}

const broken: Answer = () => {
  throw new TypeError("fetch failed", { cause: new Error("other side closed") });
};
const unreachable: Answer = () => {
  throw new TypeError("fetch failed", { cause: Object.assign(new Error("no"), { code: "ECONNREFUSED" }) });
};
const done: Answer = () => new Response(DONE);

async function failure(work: Promise<unknown>): Promise<CallError> {
  return work.then(
    () => assert.fail("nothing was raised"),
    (error: unknown) => (assert.ok(error instanceof CallError, String(error)), error),
  );
}

test("a request says everything that the options do", async () => {
  const [client, requests] = answered(done);
  await client.run("add", { a: 1 }, {
    taskId: "t",
    timeout: 5,
    onDisconnect: { graceS: 3 },
    route: { labels: { gpu: "a" }, sticky: "s" },
    outputConfig: { deep: true },
    notes: true,
    correlationId: "log-me",
    idempotencyKey: "k",
  });
  const { url, init } = requests[0] ?? assert.fail();
  assert.equal(url, "http://server.test/v2/execute");
  assert.deepEqual(JSON.parse(String(init.body)), {
    command: "add",
    input: { a: 1 },
    is_stream: false,
    task_id: "t",
    output_config: { deep: true },
    notes: true,
    on_disconnect: { grace_s: 3 },
    timeout: 5,
    route: { labels: { gpu: "a" }, sticky: "s" },
  });
  assert.deepEqual(init.headers, {
    accept: "application/json",
    authorization: "Bearer secret",
    "content-type": "application/json",
    "x-request-id": "log-me",
    "idempotency-key": "k",
  });
});

test("every code of the protocol is told as it is, and whether to try again", async () => {
  const page = readFileSync(`${ROOT}docs/protocol.md`, "utf8");
  const rows = [...page.matchAll(/^\| `(\w+)` \| (\d{3}) \|.*\| (yes|no) \|$/gm)];
  assert.ok(rows.length >= 25);
  for (const [, code = "", status, retryable] of rows) {
    const late = { retry_after_s: 60 }; // more than is waited for
    const [client] = answered(refused(Number(status), code, late));
    const error = await failure(client.run("add"));
    assert.deepEqual([error.code, error.retryable, error.retryAfterS], [code, retryable === "yes", 60]);
    const [proxied] = answered(() => new Response("<html>", { status: Number(status), headers: { "retry-after": "7" } }));
    assert.equal((await failure(proxied.run("add"))).retryAfterS, 7);
  }
});

test("what was refused before it ran is sent again, at most so often", async () => {
  const busy = refused(429, "resource_exhausted", { retryable: true, retry_after_s: 0.001 });
  const [client, requests] = answered(busy, refused(503, "unavailable"), done);
  assert.equal(await client.run("add"), 1);
  assert.equal(new Set(requests.map(({ init }) => String(init.body))).size, 1);
  const [patient, all] = answered(busy, busy, busy, busy);
  assert.equal((await failure(patient.run("add"))).code, "resource_exhausted");
  assert.equal(all.length, 1 + retry.attempts);
});

test("what may have run is sent again only under an idempotency key", async () => {
  assert.equal(((await failure(answered(broken)[0].run("add"))) as ConnectionFailed).sent, true);
  assert.equal(await answered(broken, broken, done)[0].run("add", {}, { idempotencyKey: "k" }), 1);
  assert.equal(await answered(unreachable, done)[0].run("add"), 1);
  const failed = JSON.stringify({ type: "task", status: "error", error: "no", code: "unavailable", seq: 1 });
  const [client, requests] = answered(() => new Response(failed, { status: 503 }));
  assert.equal((await failure(client.run("add"))).code, "unavailable");
  assert.equal(requests.length, 1);
  const [html] = answered(() => new Response("<html>", { status: 502 }));
  assert.equal((await failure(html.run("add"))).code, "upstream_failed");
});

test("questions that change nothing are asked again", async () => {
  const [client] = answered(broken, () => Response.json({ tasks: [] }));
  assert.deepEqual(await client.tasks(), []);
});

test("what is no penstock is told so", async () => {
  const [client] = answered(() => new Response("<html>", { headers: { "content-type": "text/html" } }));
  await assert.rejects(client.run("add"), RemoteProtocolError);
  const [streaming] = answered(() => new Response("<html>", { headers: { "content-type": "text/html" } }));
  await assert.rejects(streaming.stream("count")[Symbol.asyncIterator]().next(), RemoteProtocolError);
  assert.throws(() => new Client("ftp://server.test"), TypeError);
});

test("a frame that is missing, or comes twice, is a fault of the server", async () => {
  for (const seq of [0, 2]) {
    const frames = [0, seq].map((number) => JSON.stringify({ type: "task", status: "accepted", seq: number }));
    const body = `${frames.join("\n")}\n`;
    const [client] = answered(() => new Response(body, { headers: { "content-type": "application/x-ndjson" } }));
    await assert.rejects(client.stream("count")[Symbol.asyncIterator]().next(), RemoteProtocolError);
  }
});

test("a stream that falls silent counts as dropped, and is read on", async () => {
  const asked: string[] = [];
  const headers = { "content-type": "application/x-ndjson" };
  const frame = (seq: number, status: string, more: {} = {}): string =>
    `${JSON.stringify({ type: "task", status, task_id: "t", seq, ...more })}\n`;
  const silent = (signal: AbortSignal): ReadableStream<Uint8Array> =>
    new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(frame(0, "accepted", { request_id: "r" })));
        signal.addEventListener("abort", () => controller.error(signal.reason));
      },
    });
  const client = new Client("http://server.test", {
    retry,
    silence: 0.02,
    fetch: async (url, init) => {
      asked.push(String(url));
      if (asked.length === 1) return new Response(silent(init?.signal ?? assert.fail()), { headers });
      return new Response(frame(1, "streaming", { data: "fox" }) + frame(2, "completed"), { headers });
    },
  });
  const items = [];
  for await (const item of client.stream("count")) items.push(item);
  assert.deepEqual(items, ["fox"]);
  assert.equal(asked[1], "http://server.test/tasks/r/events?after=0");
});

test("lines are the same wherever the bytes are cut, within a letter as well", () => {
  const text = '{"a":"Hell\u00f6 \u{1f98a}"}\n\r\n{"b":1}\n';
  const bytes = new TextEncoder().encode(text);
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const lines = new LineSplitter();
    const found = [...lines.feed(bytes.subarray(0, cut)), ...lines.feed(bytes.subarray(cut))];
    assert.deepEqual(found, ['{"a":"Hell\u00f6 \u{1f98a}"}', '{"b":1}']);
  }
});

test("packets of a WebSocket are the same wherever the bytes are cut, in parts and of every size", () => {
  const sizes = [0, 1, 125, 126, 65_535, 65_536];
  for (const size of sizes) {
    const [head, body] = [size < 126 ? [size] : size < 65_536 ? [126, 0, 0] : [127, 0, 0, 0, 0, 0, 0, 0, 0], Buffer.alloc(size, "x")];
    const first = Buffer.from([0x01, 1, 0x61]); // a first part, "a", and more to come
    const last = Buffer.from([0x80, ...head]);
    if (head.length === 3) last.writeUInt16BE(size, 2);
    if (head.length === 9) last.writeBigUInt64BE(BigInt(size), 2);
    const ping = Buffer.from([0x89, 1, 0x62]); // may stand between the parts
    const bytes = Buffer.concat([first, ping, last, body]);
    const cuts = [...Array(Math.min(bytes.length, 20)).keys(), bytes.length - 1, bytes.length];
    for (const cut of cuts) {
      const reader = new PacketReader();
      const found = [...reader.feed(bytes.subarray(0, cut)), ...reader.feed(bytes.subarray(cut))];
      assert.deepEqual(found.map(({ opcode, payload }) => [opcode, payload.length]), [[9, 1], [1, size + 1]]);
    }
  }
});
