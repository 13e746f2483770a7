/** One field of a form: its label, what is put in, and what is wrong with that. */

import { base64Of, checkText, jsonOf, Misfit, numberOf } from "./checks.js";
import { h, newId } from "./dom.js";
import type { Field } from "./schema.js";

type Box = HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;

const LEFT_OUT = "";
const SHORT = 80; // characters that go into one line

/** A field on the page. */
export class FieldBox {
  readonly element: HTMLElement;
  private readonly box: Box;
  private readonly wrong: HTMLElement;

  constructor(readonly field: Field) {
    const id = newId();
    const hint = hintOf(field);
    this.box = boxOf(field);
    this.wrong = h("p", { class: "wrong", id: `${id}-wrong` });
    this.box.id = id;
    this.box.name = field.name;
    this.box.setAttribute("aria-describedby", `${id}-hint ${id}-wrong`);
    if (field.required) this.box.setAttribute("aria-required", "true");
    this.box.addEventListener("input", () => this.blame(""));
    const mark = field.required ? [h("span", { class: "mark", title: "needed" }, " *")] : [];
    const label = h("label", { for: id }, field.name, ...mark);
    const about = h("p", { class: "hint", id: `${id}-hint` }, hint);
    const parts = field.kind === "boolean" && this.box.type === "checkbox" ? [this.box, label] : [label, this.box];
    this.element = h("div", { class: `field ${field.kind}` }, ...parts, about, this.wrong);
  }

  /** Say what is wrong; nothing is, if that is empty. */
  blame(words: string): void {
    this.wrong.textContent = words;
    if (words === "") this.box.removeAttribute("aria-invalid");
    else this.box.setAttribute("aria-invalid", "true");
  }

  /** Go there. */
  focus(): void {
    this.box.focus();
  }

  /**
   * Return what was put in, undefined for nothing.
   *
   * @throws Misfit It does not fit.
   */
  async value(): Promise<unknown> {
    const value = await this.read();
    if (value === undefined && this.field.required) {
      if (this.field.nullable) return null;
      throw new Misfit("a value is needed");
    }
    // What holds anyway need not be said.
    const same = !this.field.required && JSON.stringify(value) === JSON.stringify(this.field.fallback);
    return same ? undefined : value;
  }

  private async read(): Promise<unknown> {
    const { box, field } = this;
    if (box instanceof HTMLInputElement && box.type === "file") {
      const file = box.files?.[0];
      return file === undefined ? undefined : base64Of(file);
    }
    if (box instanceof HTMLInputElement && box.type === "checkbox") return box.checked;
    if (box instanceof HTMLSelectElement) return box.value === LEFT_OUT ? undefined : JSON.parse(box.value);
    const numeric = box instanceof HTMLInputElement && box.validity.badInput; // its text is hidden from us
    if (numeric) throw new Misfit("a number is needed");
    if (box.value === "" && !(field.kind === "text" && field.fallback)) return undefined;
    if (field.kind === "number") return numberOf(box.value, field.schema);
    if (field.kind === "json") return jsonOf(box.value, field);
    checkText(box.value, field.schema);
    return box.value;
  }
}

function boxOf(field: Field): Box {
  const { kind, schema, fallback } = field;
  if (kind === "file") return h("input", { type: "file" });
  if (kind === "boolean" && typeof fallback === "boolean") return h("input", { type: "checkbox", checked: fallback });
  if (kind === "boolean") return selectOf(field, [true, false]);
  if (kind === "choice") return selectOf(field, field.choices);
  const value = shown(field, fallback);
  if (kind === "number") {
    const whole = schema["type"] === "integer";
    return h("input", { type: "number", step: whole ? 1 : "any", inputmode: whole ? "numeric" : "decimal", value });
  }
  const { maxLength } = schema;
  if (kind === "text" && typeof maxLength === "number" && maxLength <= SHORT) {
    return h("input", { type: "text", autocomplete: "off", value });
  }
  const rows = kind === "json" && schema["type"] !== undefined ? 3 : 2;
  const spellcheck = kind === "text" ? "true" : "false";
  return h("textarea", { rows, spellcheck, autocomplete: "off", placeholder: field.sample }, value);
}

function selectOf(field: Field, values: readonly unknown[]): HTMLSelectElement {
  const options = values.map((value) =>
    h("option", { value: JSON.stringify(value), selected: value === field.fallback }, String(value)),
  );
  const must = field.required && !field.nullable;
  return h("select", {}, ...(must ? [] : [h("option", { value: LEFT_OUT }, "–")]), ...options);
}

function shown(field: Field, value: unknown): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string" && (field.kind === "text" || field.loose)) return value;
  return field.kind === "json" ? JSON.stringify(value, null, 2) : String(value);
}

function hintOf({ kind, type, description, schema, fallback }: Field): string {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const bounds = [
    minimum === undefined ? "" : `from ${minimum}`,
    exclusiveMinimum === undefined ? "" : `above ${exclusiveMinimum}`,
    maximum === undefined ? "" : `to ${maximum}`,
    exclusiveMaximum === undefined ? "" : `below ${exclusiveMaximum}`,
  ].filter(Boolean);
  const form = kind === "json" ? `${type}, in JSON` : type === "string" ? "" : type;
  const usual = fallback === undefined || fallback === null || fallback === "" ? "" : `default ${JSON.stringify(fallback)}`;
  return [description, [form, ...bounds].filter(Boolean).join(" "), usual].filter(Boolean).join(" · ");
}
