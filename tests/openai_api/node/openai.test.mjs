// OpenAI's own SDK for Node, unchanged, against the server whose address is in PENSTOCK_TEST_URL.  It shows what
// its callers rely on: what comes, what an abort does at the other end, and which errors it throws.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const url = process.env.PENSTOCK_TEST_URL;
const locked = process.env.PENSTOCK_TEST_LOCKED_URL;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0, timeout: 20_000 });

const asking = (text, more = {}) => ({ model: "talker", messages: [{ role: "user", content: text }], ...more });

async function gathered(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

// The state of a call, once it has ended.
async function endOf(task) {
  for (;;) {
    const record = await (await fetch(`${url}/tasks/${task}`)).json();
    if (!["accepted", "streaming"].includes(record.status)) return record.status;
  }
}

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("talker") && ids.includes("embed"));
  assert.equal((await client.models.retrieve("talker")).owned_by, "penstock");
});

test("a whole answer, and its counts", async () => {
  const { data: answer, response } = await client.chat.completions
    .create(asking("one two three", { max_completion_tokens: 2 }))
    .withResponse();
  assert.equal(answer.choices[0].message.content, "one two");
  assert.equal(answer.choices[0].finish_reason, "length");
  assert.equal(answer.usage.total_tokens, 9);
  assert.ok(response.headers.get("x-request-id"));
});

test("a stream, and its counts", async () => {
  const stream = await client.chat.completions.create(
    asking("one two", { stream: true, stream_options: { include_usage: true } }),
  );
  const chunks = await gathered(stream);
  assert.equal(textOf(chunks), "one two");
  assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
  assert.equal(chunks.at(-1).usage.prompt_tokens, 7);
});

test("its helper puts a stream together", async () => {
  const stream = client.chat.completions.stream(asking("one two three"));
  const said = [];
  stream.on("content", (delta) => said.push(delta));
  const whole = await stream.finalChatCompletion();
  assert.deepEqual(said.filter(Boolean), ["one", " two", " three"]);
  assert.equal(whole.choices[0].message.content, "one two three");
});

test("several choices", async () => {
  const answer = await client.chat.completions.create(asking("a b", { n: 3, seed: 5 }));
  assert.deepEqual(answer.choices.map((choice) => choice.message.content), ["a b", "a b", "a b"]);
  const texts = ["", ""];
  for await (const chunk of await client.chat.completions.create(asking("c d", { n: 2, stream: true }))) {
    for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
  }
  assert.deepEqual(texts, ["c d", "c d"]);
});

test("tools", async () => {
  const tools = [{ type: "function", function: { name: "add", parameters: {} } }];
  const asked = asking("x", { model: "act", tools });
  const [call] = (await client.chat.completions.create(asked)).choices[0].message.tool_calls;
  assert.deepEqual([call.function.name, call.function.arguments], ["add", '{"a": 1}']);
  const chunks = await gathered(await client.chat.completions.create({ ...asked, stream: true }));
  const pieces = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
  assert.equal(pieces.map((piece) => piece.function?.arguments ?? "").join(""), '{"a": 1}');
  assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
});

test("completions", async () => {
  const answer = await client.completions.create({ model: "go_on", prompt: ["ab", "cd"] });
  assert.deepEqual(answer.choices.map((choice) => choice.text), ["ba", "dc"]);
  const chunks = await gathered(await client.completions.create({ model: "go_on", prompt: "abc", stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), "cba");
});

test("embeddings, in the form it asks for by itself and as numbers", async () => {
  for (const more of [{}, { encoding_format: "float" }]) {
    const answer = await client.embeddings.create({ model: "embed", input: ["a", "bcd"], ...more });
    assert.deepEqual(answer.data.map((vector) => Array.from(vector.embedding)), [[1, 0.25], [3, 0.25]]);
  }
});

test("responses", async () => {
  const asked = { model: "talker", input: "one two", instructions: "be brief" };
  const response = await client.responses.create(asked);
  assert.deepEqual([response.status, response.output_text], ["completed", "one two"]);
  assert.equal(response.usage.output_tokens, 2);
  const events = await gathered(await client.responses.create({ ...asked, stream: true }));
  assert.equal(events.at(0).type, "response.created");
  assert.equal(events.at(-1).type, "response.completed");
  assert.equal(events.filter((event) => event.type.endsWith("text.delta")).map((event) => event.delta).join(""), "one two");
  assert.equal((await client.responses.stream(asked).finalResponse()).output_text, "one two");
});

test("a model that takes requests as they are", async () => {
  const answer = await client.chat.completions.create(asking("hi", { model: "relayed" }));
  assert.equal(answer.choices[0].message.content, "whole");
  const stream = await client.chat.completions.create(asking("hi", { model: "relayed", stream: true }));
  assert.equal(textOf(await gathered(stream)), "one two");
});

const LEAVING = {
  "the end of the loop": async (stream) => {
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) return chunk.id;
  },
  "its abort": async (stream) => {
    let id;
    for await (const chunk of stream) {
      id = chunk.id;
      if (chunk.choices[0]?.delta.content) stream.controller.abort();
    }
    return id;
  },
};
for (const [how, leave] of Object.entries(LEAVING)) {
  test(`${how} of a stream cancels the call`, async () => {
    const id = await leave(await client.chat.completions.create(asking("one hang", { stream: true })));
    assert.equal(await endOf(id), "cancelled");
  });
}

test("an abort before the answer cancels the call", async () => {
  const leaving = new AbortController();
  const asked = client.chat.completions.create(asking("hang"), { signal: leaving.signal });
  const refused = assert.rejects(asked, OpenAI.APIUserAbortError);
  let task;
  while (task === undefined) {
    const { tasks } = await (await fetch(`${url}/tasks`)).json();
    task = tasks.find((one) => one.command === "talk" && ["accepted", "streaming"].includes(one.status))?.task_id;
  }
  leaving.abort();
  await refused;
  assert.equal(await endOf(task), "cancelled");
});

test("its timeout", async () => {
  await assert.rejects(client.chat.completions.create(asking("hang"), { timeout: 100 }), OpenAI.APIConnectionTimeoutError);
});

const WRONG = [
  ["an unknown model", { model: "nobody" }, OpenAI.NotFoundError, 404, "not_found", "model"],
  ["a wrong value", { n: 0 }, OpenAI.BadRequestError, 400, "invalid_argument", "n"],
  ["what is not supported", { logprobs: true }, OpenAI.BadRequestError, 400, "invalid_argument", "logprobs"],
  ["no room", { model: "full" }, OpenAI.RateLimitError, 429, "resource_exhausted", null],
  ["a failure", { messages: [{ role: "user", content: "fail" }] }, OpenAI.InternalServerError, 503, "unavailable", null],
];
for (const [what, more, kind, status, code, param] of WRONG) {
  test(`${what} is told`, async () => {
    for (const stream of [false, true]) {
      const asked = client.chat.completions.create(asking("x", { ...more, stream }));
      await assert.rejects(asked, (error) => {
        assert.ok(error instanceof kind, String(error));
        assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
        return true;
      });
    }
  });
}

test("a failure in the middle of a stream is thrown behind what was said", async () => {
  const said = [];
  await assert.rejects(
    async () => {
      for await (const chunk of await client.chat.completions.create(asking("one fail", { stream: true }))) {
        said.push(chunk.choices[0].delta.content);
      }
    },
    (error) => error instanceof OpenAI.APIError && error.code === "unavailable",
  );
  assert.deepEqual(said, ["", "one"]);
});

test("a key is asked for", async () => {
  const ask = (apiKey) => new OpenAI({ baseURL: `${locked}/v1`, apiKey, maxRetries: 0 }).models.list();
  await assert.rejects(ask("wrong"), OpenAI.AuthenticationError);
  assert.equal((await ask(process.env.PENSTOCK_TEST_KEY)).data[0].id, "talker");
});

test("a request that is sent again is run once", async () => {
  const headers = { "Idempotency-Key": "node-1" };
  const [first, second] = [
    await client.chat.completions.create(asking("one"), { headers }),
    await client.chat.completions.create(asking("one"), { headers }),
  ];
  assert.equal(first.id, second.id);
  await assert.rejects(client.chat.completions.create(asking("two"), { headers }), OpenAI.ConflictError);
});
