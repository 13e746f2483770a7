/** The parts of the playground that need no page. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Misfit, checkText, jsonOf, numberOf } from "../page/checks.js";
import { Meter } from "../page/meter.js";
import type { Field, Schema } from "../page/schema.js";
import { fieldsOf } from "../page/schema.js";

function only(schema: Schema, defs: Schema = {}): Field {
  const [field] = fieldsOf({ type: "object", properties: { it: schema }, $defs: defs }) ?? [];
  assert.ok(field);
  return field;
}

test("each schema has its kind of field", () => {
  const kinds: readonly (readonly [Schema, string, string])[] = [
    [{ type: "string" }, "text", "string"],
    [{ type: "integer" }, "number", "integer"],
    [{ type: "number" }, "number", "number"],
    [{ type: "boolean" }, "boolean", "boolean"],
    [{ type: "string", format: "base64url" }, "file", "file"],
    [{ type: "string", contentEncoding: "base64" }, "file", "file"],
    [{ enum: ["a", 1, null] }, "choice", "any"],
    [{ const: "a", type: "string" }, "choice", "string"],
    [{ type: "array", items: { type: "integer" } }, "json", "list of integer"],
    [{ type: "object" }, "json", "object"],
    [{}, "json", "any"],
    [{ anyOf: [{ type: "string" }, { type: "null" }] }, "text", "string or null"],
    [{ type: ["integer", "null"] }, "number", "integer or null"],
    [{ anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }] }, "json", "string or list of string"],
    [{ $ref: "#/$defs/Colour" }, "choice", "string"],
    [{ anyOf: [{ $ref: "#/$defs/Colour" }, { type: "null" }] }, "choice", "string or null"],
    [{ $ref: "#/$defs/Loop" }, "json", "any"],
  ];
  const defs = { Colour: { type: "string", enum: ["red", "green"] }, Loop: { $ref: "#/$defs/Loop" } };
  for (const [schema, kind, type] of kinds) {
    const field = only(schema, defs);
    assert.deepEqual([field.kind, field.type], [kind, type], JSON.stringify(schema));
  }
});

test("a schema that does not say its fields has none that are known", () => {
  assert.equal(fieldsOf({}), undefined);
  assert.equal(fieldsOf({ type: "object" }), undefined);
  assert.deepEqual(fieldsOf({ type: "object", additionalProperties: false }), []);
});

test("a sample is the least that a schema takes", () => {
  const turn = {
    type: "object",
    properties: { role: { enum: ["user", "system"] }, content: { type: "string" }, name: { type: "string" } },
    required: ["role", "content"],
  };
  const messages = { type: "array", items: { $ref: "#/$defs/Turn" } };
  assert.equal(only(messages, { Turn: turn }).sample, '[{"role":"user","content":""}]');
  const endless = { type: "object", properties: { next: { $ref: "#/$defs/Endless" } }, required: ["next"] };
  assert.ok(only({ $ref: "#/$defs/Endless" }, { Endless: endless }).sample.length < 100);
});

test("numbers and texts are checked as their schemas say", () => {
  const whole = { type: "integer", minimum: 1, maximum: 9, multipleOf: 2 };
  assert.equal(numberOf("4", whole), 4);
  for (const text of ["0", "10", "3", "1.5", "x", "1e400"]) assert.throws(() => numberOf(text, whole), Misfit, text);
  assert.throws(() => numberOf("9007199254740993", { type: "integer" }), Misfit);
  assert.equal(numberOf("-1e3", { type: "number" }), -1000);
  for (const text of ["0", "1"]) {
    assert.throws(() => numberOf(text, { exclusiveMinimum: 0, exclusiveMaximum: 1 }), Misfit);
  }
  checkText("🦊🦊", { minLength: 2, maxLength: 2 });
  for (const text of ["🦊", "abc"]) assert.throws(() => checkText(text, { minLength: 2, maxLength: 2 }), Misfit);
});

test("JSON is what it says, and text only where that is taken", () => {
  assert.deepEqual(jsonOf("[1]", only({ type: "array" })), [1]);
  for (const text of ["{}", "null", "[", "x"]) assert.throws(() => jsonOf(text, only({ type: "array" })), Misfit, text);
  for (const text of ["[]", "null", "1"]) assert.throws(() => jsonOf(text, only({ type: "object" })), Misfit, text);
  const loose = only({ anyOf: [{ type: "string" }, { type: "array" }] });
  assert.equal(jsonOf("no JSON", loose), "no JSON");
  assert.deepEqual(jsonOf("[2]", loose), [2]);
  assert.equal(jsonOf("null", only({ anyOf: [{ type: "array" }, { type: "null" }] })), null);
});

test("a meter measures what came, in bounded room", () => {
  let seed = 7;
  const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let round = 0; round < 50; round += 1) {
    const meter = new Meter(100);
    const gaps: number[] = [];
    let now = 100 + 50 * random();
    const first = now - 100;
    meter.see(now);
    const count = 2 + Math.floor(500 * random());
    for (let item = 1; item < count; item += 1) {
      const gap = random() < 0.2 ? 0 : 10 ** (4 * random() - 1);
      now += gap;
      gaps.push(gap);
      meter.see(now);
    }
    const near = (found: number | undefined, due: number): void =>
      assert.ok(found !== undefined && Math.abs(found - due) <= 1e-6 * Math.max(1, due), `${found}, not ${due}`);
    const sum = gaps.reduce((a, b) => a + b, 0);
    near(meter.first, first);
    near(meter.mean, sum / gaps.length);
    near(meter.longest, Math.max(...gaps));
    near(meter.rate, (1000 * gaps.length) / sum);
    assert.ok(meter.columns.length <= 60);
    assert.ok(meter.columns.length * meter.width >= sum - 1e-6);
    assert.equal(meter.columns.reduce((total, each) => total + each.count, 0), count);
    near(Math.max(...meter.columns.map(({ gapMax }) => gapMax)), Math.max(...gaps));
    const sorted = [...gaps].sort((a, b) => a - b);
    for (const share of [0.5, 0.95, 1]) {
      const due = sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
      const found = meter.quantile(share) ?? NaN;
      assert.ok(found >= due - 1e-9 - 0.01 && found <= Math.max(0.011, due * 1.1 + 1e-9), `${found}, not ${due}`);
    }
  }
});

test("a meter says nothing of what it has not seen", () => {
  const meter = new Meter(0);
  assert.deepEqual([meter.first, meter.rate, meter.mean, meter.quantile(0.5), meter.columns], [undefined, undefined, undefined, undefined, []]);
  meter.see(5);
  assert.deepEqual([meter.first, meter.rate, meter.mean], [5, undefined, undefined]);
});
