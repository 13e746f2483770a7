/** Calls on a real server, over HTTP and over WebSocket. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { CallCancelled, CallError, Client, ConnectionFailed } from "../src/index.js";
import { EventSplitter } from "../src/lines.js";
import { Relay } from "./relay.js";
import type { Served } from "./server.js";
import { python, serve } from "./server.js";

let server: Served;
before(async () => void (server = await serve()));
after(() => server.stop());

/** Have `work` done with a client that is closed afterwards. */
async function using(scheme: string, work: (client: Client) => Promise<void>): Promise<void> {
  const client = new Client(server.url.replace("http", scheme));
  try {
    await work(client);
  } finally {
    client.close();
  }
}

async function collect(items: AsyncIterable<unknown>): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** Return the error that `work` raises, which must be of a class. */
async function raised<E>(kind: new (...parts: never[]) => E, work: () => Promise<unknown>): Promise<E> {
  try {
    await work();
  } catch (error) {
    assert.ok(error instanceof kind, String(error));
    return error;
  }
  return assert.fail(`no ${kind.name} was raised`);
}

for (const scheme of ["http", "ws"]) {
  test(`${scheme}: answers, streams and workflows`, () =>
    using(scheme, async (client) => {
      assert.deepEqual(await client.run("add", { a: 1, b: 2 }), { sum: 3 });
      assert.deepEqual(await client.run("count", { n: 3 }), { i: 2 });
      const stream = client.stream<{ chunk: string }>("predict", { prompt: "A fox" });
      let said = "";
      for await (const { chunk } of stream) said += chunk;
      assert.ok(said.length > 10);
      assert.equal(stream.text, said);
      assert.equal(stream.status, "completed");
      assert.equal(stream.metrics["items"], stream.lastSeq - 1);
      assert.deepEqual((await client.task(stream.requestId ?? "")).task_id, stream.taskId);
      const steps = { sum: { sum: 3 }, count: { i: 2 } };
      const items = [{ sum: 3 }, { i: 0 }, { i: 1 }, { i: 2 }, { steps }];
      assert.deepEqual(await collect(client.workflow("sum_then_count")), items);
      assert.deepEqual(await client.runWorkflow("sum_then_count"), { steps });
      assert.equal((await client.commands())["predict"]?.streaming, true);
      const { commands, workflows } = await client.describe();
      assert.equal(commands["add"]?.streaming, false);
      assert.deepEqual(Object.keys(workflows), ["sum_then_count"]);
      assert.equal((await client.health()).status, "healthy");
    }));

  test(`${scheme}: a call is read again from behind any frame`, () =>
    using(scheme, async (client) => {
      const taskId = `again-${scheme}`;
      await collect(client.stream("count", { n: 4 }, { taskId }));
      assert.deepEqual(await collect(client.resume(taskId, 2)), [{ i: 2 }, { i: 3 }]);
      const frames = await collect(client.resume(taskId).frames());
      assert.deepEqual(frames.map((frame) => (frame as { seq: number }).seq), [0, 1, 2, 3, 4, 5]);
      assert.equal((await raised(CallError, () => collect(client.resume("nobody")))).code, "not_found");
    }));

  test(`${scheme}: a cancel reaches the server, and ends the stream`, () =>
    using(scheme, async (client) => {
      const stream = client.stream("hold", {}, { taskId: `held-${scheme}`, onDisconnect: "continue" });
      const error = await raised(CallCancelled, async () => {
        for await (const item of stream) {
          assert.deepEqual(item, { i: 0 });
          assert.equal(await stream.cancel(), "cancelled");
        }
      });
      assert.equal(error.reason, "caller");
      assert.equal((await client.task(`held-${scheme}`)).status, "cancelled");
      assert.equal(await client.cancel(`held-${scheme}`), "already_finished");
      assert.equal((await raised(CallError, () => client.cancel("nobody"))).code, "not_found");
    }));

  test(`${scheme}: an AbortSignal cancels a stream, and an answer that is waited for`, () =>
    using(scheme, async (client) => {
      for (const way of ["stream", "run"] as const) {
        const aborting = new AbortController();
        const taskId = `${way}-${scheme}`;
        const options = { taskId, onDisconnect: "continue", signal: aborting.signal } as const;
        const ended = raised(CallCancelled, () =>
          way === "run" ? client.run("hold", {}, options) : collect(client.stream("hold", {}, options)),
        );
        await reached(client, taskId, "streaming");
        aborting.abort("enough");
        assert.equal((await ended).reason, "caller");
        assert.equal((await client.task(taskId)).status, "cancelled");
      }
    }));

  test(`${scheme}: a signal that was aborted before runs nothing`, () =>
    using(scheme, async (client) => {
      const options = { taskId: `never-${scheme}`, signal: AbortSignal.abort() };
      await raised(CallCancelled, () => client.run("add", { a: 1, b: 2 }, options));
      await raised(CallCancelled, () => collect(client.stream("count", { n: 1 }, options)));
      assert.equal((await raised(CallError, () => client.task(options.taskId))).code, "not_found");
    }));

  test(`${scheme}: leaving the loop leaves the call to its onDisconnect`, () =>
    using(scheme, async (client) => {
      const taskId = `left-${scheme}`;
      for await (const item of client.stream("hold", {}, { taskId })) {
        assert.deepEqual(item, { i: 0 });
        break;
      }
      await reached(client, taskId, "cancelled");
      assert.equal((await client.task(taskId))["reason"], "disconnect");
    }));

  test(`${scheme}: what is refused and what fails is told by its code`, () =>
    using(scheme, async (client) => {
      for (const ask of [
        (command: string, input: {}, options: {}) => client.run(command, input, options),
        (command: string, input: {}, options: {}) => collect(client.stream(command, input, options)),
      ]) {
        const error = async (command: string, input: {} = {}, options: {} = {}): Promise<CallError> =>
          raised(CallError, () => ask(command, input, options));
        assert.equal((await error("ad")).code, "not_found");
        const faulty = await error("add", { a: 1, b: "no" });
        assert.deepEqual([faulty.code, faulty.details.length], ["invalid_argument", 1]);
        const failed = await error("fail");
        assert.deepEqual([failed.code, failed.message], ["command_failed", "the model is out of ideas"]);
        const late = await error("hold", {}, { timeout: 0.05 });
        assert.deepEqual([late.code, late.retryable], ["deadline_exceeded", true]);
        assert.equal((await error("count", { n: NaN })).code, "invalid_argument");
      }
    }));

  test(`${scheme}: where nobody listens, that is said, and nothing counts as sent`, async () => {
    const relay = new Relay(new URL(server.url));
    const address = (await relay.listen()).replace("http", scheme);
    await relay.close();
    const client = new Client(address, { retry: { attempts: 1, baseS: 0.001 } });
    assert.equal((await raised(ConnectionFailed, () => client.run("add"))).sent, false);
    assert.equal((await raised(ConnectionFailed, () => collect(client.stream("count")))).sent, false);
  });
}

test("a key travels over HTTP, and in the handshake of a WebSocket", async () => {
  const keys = join(mkdtempSync(join(tmpdir(), "penstock-")), "keys.txt");
  const made = spawnSync(python(), ["-m", "penstock.cli", "keys", "new", "alice", "--file", keys], { encoding: "utf8" });
  const apiKey = made.stdout.trim();
  assert.match(apiKey, /^penstock_\S{20,}$/, made.stderr);
  const guarded = await serve("--auth-keys", keys);
  try {
    for (const scheme of ["http", "ws"]) {
      const url = guarded.url.replace("http", scheme);
      const client = new Client(url, { apiKey });
      assert.deepEqual(await client.run("add", { a: 1, b: 2 }), { sum: 3 });
      client.close();
      const stranger = new Client(url, { apiKey: `${apiKey}x` });
      assert.equal((await raised(CallError, () => stranger.run("add"))).code, "unauthenticated");
      assert.equal((await raised(CallError, () => collect(stranger.stream("count")))).code, "unauthenticated");
      stranger.close();
    }
  } finally {
    await guarded.stop();
    rmSync(dirname(keys), { recursive: true });
  }
});

test("ws: many calls run at once, 256 of them on one socket", () =>
  using("ws", async (client) => {
    const counts = Array.from({ length: 300 }, (_, index) => collect(client.stream("count", { n: index % 50 })));
    for (const [index, items] of (await Promise.all(counts)).entries()) {
      assert.deepEqual(items, Array.from({ length: index % 50 }, (_, i) => ({ i })));
    }
    const sums = Array.from({ length: 50 }, (_, a) => client.run("add", { a, b: a }));
    assert.deepEqual(await Promise.all(sums), Array.from({ length: 50 }, (_, a) => ({ sum: 2 * a })));
  }));

const FLAG = "--experimental-websocket";
const allowed = process.allowedNodeEnvironmentFlags.has(FLAG);
const native = typeof WebSocket === "function";

test("ws: the WebSocket of a browser does as well", { skip: !native && !allowed && "there is none here" }, () => {
  const page = fileURLToPath(new URL("page.js", import.meta.url));
  const flags = native ? [] : [FLAG, "--no-warnings"];
  const done = spawnSync(process.execPath, [...flags, page, server.url.replace("http", "ws")], { encoding: "utf8" });
  assert.equal(done.stderr, "");
  assert.deepEqual(JSON.parse(done.stdout), { global: true, items: [{ i: 0 }, { i: 1 }], cancelled: "caller" });
});

/** Return once a call has a status; the server is asked again and again, as it tells nobody else. */
async function reached(client: Client, taskId: string, status: string): Promise<void> {
  for (;;) {
    try {
      if ((await client.task(taskId)).status === status) return;
    } catch (error) {
      if (!(error instanceof CallError) || error.code !== "not_found") throw error;
    }
  }
}

test("ws: items follow the request", () =>
  using("ws", async (client) => {
    const stream = client.stream<string>("upper", { words: ["a"] }, { moreInput: true, correlationId: "c" });
    assert.equal(stream.correlationId, "c");
    assert.throws(() => stream.send("b"), CallError);
    await stream.open();
    stream.send("b");
    stream.endInput();
    assert.deepEqual(await collect(stream), ["A", "B"]);
    assert.throws(() => stream.send("c"), CallError);
    assert.deepEqual(await collect(client.stream("upper", { words: ["a"] })), ["A"]);
  }));

test("http: items cannot follow the request", () =>
  using("http", async (client) => {
    const error = await raised(CallError, () => collect(client.stream("upper", {}, { moreInput: true })));
    assert.equal(error.code, "not_implemented");
    const held = client.stream("hold");
    await held.open();
    assert.equal((await raised(CallError, async () => held.send("a"))).code, "not_implemented");
    held.close();
  }));

test("http: streams may travel as events", async () => {
  const forms: string[] = [];
  const fetching: typeof fetch = async (url, init) => {
    const response = await fetch(url, init);
    forms.push(response.headers.get("content-type") ?? "");
    return response;
  };
  const client = new Client(server.url, { form: "sse", fetch: fetching });
  assert.deepEqual(await collect(client.stream("count", { n: 3 })), [{ i: 0 }, { i: 1 }, { i: 2 }]);
  assert.match(forms[0] ?? "", /^text\/event-stream/);
  client.close();
});

test("events are found however their bytes are cut", () => {
  const text = ': hi\r\n\r\nid: 1\r\ndata: {"a":\r\ndata:"zwölf €"}\r\n\r\ndata: 2\n\n\ndata: 3\n';
  const bytes = new TextEncoder().encode(text);
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const splitter = new EventSplitter();
    const found = [...splitter.feed(bytes.subarray(0, cut)), ...splitter.feed(bytes.subarray(cut))];
    assert.deepEqual(found, ['{"a":\n"zwölf €"}', "2"], `cut at ${cut}`);
  }
});

for (const scheme of ["http", "ws"]) {
  test(`${scheme}: errors tell of which request they are`, () =>
    using(scheme, async (client) => {
      for (const command of ["fail", "nope"]) {
        const ofRun = await raised(CallError, () => client.run(command, {}, { correlationId: "r" }));
        const ofStream = await raised(CallError, () => collect(client.stream(command, {}, { correlationId: "s" })));
        assert.deepEqual([ofRun.correlationId, ofStream.correlationId], ["r", "s"]);
      }
    }));
}
