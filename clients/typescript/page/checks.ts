/** Whether what was put in fits, as far as a page can tell; the server has the last word. */

import type { Field, Schema } from "./schema.js";

/** What was put in does not fit; the message is for its field. */
export class Misfit extends Error {}

/** Return the number a text is. */
export function numberOf(text: string, schema: Schema): number {
  const value = Number(text);
  if (!Number.isFinite(value)) throw new Misfit("a number is needed");
  if (schema["type"] === "integer") {
    if (!Number.isInteger(value)) throw new Misfit("a whole number is needed");
    if (!Number.isSafeInteger(value)) throw new Misfit("this page cannot tell whole numbers of that size apart");
  }
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
  if (typeof minimum === "number" && value < minimum) throw new Misfit(`at least ${minimum}`);
  if (typeof maximum === "number" && value > maximum) throw new Misfit(`at most ${maximum}`);
  if (typeof exclusiveMinimum === "number" && value <= exclusiveMinimum) throw new Misfit(`more than ${exclusiveMinimum}`);
  if (typeof exclusiveMaximum === "number" && value >= exclusiveMaximum) throw new Misfit(`less than ${exclusiveMaximum}`);
  if (schema["type"] === "integer" && typeof multipleOf === "number" && value % multipleOf !== 0) {
    throw new Misfit(`a multiple of ${multipleOf}`);
  }
  return value;
}

/** Check a text's length. */
export function checkText(text: string, schema: Schema): void {
  const length = [...text].length;
  const { minLength, maxLength } = schema;
  if (typeof minLength === "number" && length < minLength) {
    throw new Misfit(length === 0 ? "a value is needed" : `at least ${minLength} characters (there are ${length})`);
  }
  if (typeof maxLength === "number" && length > maxLength) {
    throw new Misfit(`at most ${maxLength} characters (there are ${length})`);
  }
}

/** Return what a text in JSON says. */
export function jsonOf(text: string, field: Field): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (field.loose) return text;
    throw new Misfit(`this is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const { type } = field.schema;
  if (value === null && field.nullable) return value;
  if (type === "array" && !Array.isArray(value)) throw new Misfit("a list is needed, such as [1, 2]");
  if (type === "object" && (typeof value !== "object" || value === null || Array.isArray(value))) {
    throw new Misfit('an object is needed, such as {"name": 1}');
  }
  return value;
}

const LARGEST = 11 * 1024 * 1024; // its base64 just fits into a body of the largest size

/** Return a file's bytes in base64, in the alphabet of URLs. */
export async function base64Of(file: File): Promise<string> {
  if (file.size > LARGEST) throw new Misfit(`the file has ${file.size} bytes, and ${LARGEST} is the most that can be sent`);
  const url = await new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Misfit(`the file cannot be read: ${reader.error?.message ?? "no reason given"}`));
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1).replaceAll("+", "-").replaceAll("/", "_");
}
