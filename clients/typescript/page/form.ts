/** The form of an input, made from its schema. */

import type { Detail, Input } from "../src/index.js";
import { Misfit } from "./checks.js";
import { h } from "./dom.js";
import { FieldBox } from "./fields.js";
import type { Field, Schema } from "./schema.js";
import { fieldsOf } from "./schema.js";

const WHOLE: Field = {
  name: "input",
  kind: "json",
  description: "The whole input, as it does not say which fields it has",
  required: false,
  nullable: false,
  fallback: undefined,
  choices: [],
  type: "object",
  sample: "{}",
  loose: false,
  schema: { type: "object" },
};

/** Fields for an input. */
export class Form {
  readonly element: HTMLElement;
  private readonly boxes: readonly FieldBox[];
  private readonly whole: boolean;

  /** @param without Fields that are put in elsewhere. */
  constructor(schema: Schema, without: ReadonlySet<string> = new Set()) {
    const fields = fieldsOf(schema);
    this.whole = fields === undefined;
    this.boxes = (fields ?? [WHOLE]).filter(({ name }) => !without.has(name)).map((field) => new FieldBox(field));
    const needed = this.boxes.some(({ field }) => field.required);
    const legend = needed ? [h("p", { class: "hint" }, h("span", { class: "mark" }, "*"), " is needed")] : [];
    const nothing = this.boxes.length === 0 ? [h("p", { class: "hint" }, "It takes no input.")] : [];
    this.element = h("div", { class: "fields" }, ...legend, ...nothing, ...this.boxes.map(({ element }) => element));
  }

  /** Whether nothing can be put in. */
  get empty(): boolean {
    return this.boxes.length === 0;
  }

  /** Return the input; undefined where something does not fit, which is then told at its field. */
  async input(): Promise<Input | undefined> {
    const input: Record<string, unknown> = {};
    let first: FieldBox | undefined;
    for (const box of this.boxes) {
      try {
        box.blame("");
        const value = await box.value();
        if (value !== undefined) input[box.field.name] = value;
      } catch (error) {
        if (!(error instanceof Misfit)) throw error;
        box.blame(error.message);
        first ??= box;
      }
    }
    first?.focus();
    if (first !== undefined) return undefined;
    return this.whole ? ((input[WHOLE.name] ?? {}) as Input) : input;
  }

  /** Tell at its field what a server found wrong; returns whether there was one. */
  blame(details: readonly Detail[], words: string): boolean {
    const found = details.flatMap((detail) => {
      const path = Array.isArray(detail["path"]) ? detail["path"] : [];
      const box = path[0] === "input" ? this.boxes.find(({ field }) => field.name === path[1]) : undefined;
      if (box === undefined) return [];
      const deeper = path.slice(2).join(".");
      const reason = String(detail["reason"] ?? words).replaceAll("_", " ");
      box.blame(deeper === "" ? reason : `${deeper}: ${reason}`);
      return [box];
    });
    found[0]?.focus();
    return found.length > 0;
  }
}
