/** What a JSON Schema asks for, as fields of a form. */

export type Schema = Readonly<Record<string, unknown>>;

/** How a value is put in; `json` is all that no plain field can hold. */
export type Kind = "text" | "number" | "boolean" | "choice" | "file" | "json";

/** One value of an input. */
export interface Field {
  readonly name: string;
  readonly kind: Kind;
  readonly description: string;
  readonly required: boolean;
  /** Whether null is taken. */
  readonly nullable: boolean;
  /** What holds where nothing is put in; undefined where the schema does not say. */
  readonly fallback: unknown;
  /** The values a choice has. */
  readonly choices: readonly unknown[];
  /** Its type in words. */
  readonly type: string;
  /** What it may look like, where that is JSON. */
  readonly sample: string;
  /** Whether text that is no JSON is taken as text. */
  readonly loose: boolean;
  /** Its own schema, without references and null. */
  readonly schema: Schema;
}

const DEEPEST = 4; // levels of a sample
const UNTELLING = new Set(["null", '""', "{}", "[]", "[{}]", "0"]);
const NULL: Schema = { type: "null" };
const FILES = new Set(["base64", "base64url", "binary", "byte"]);

/** Return the fields of an object's schema; undefined where it does not say which it has. */
export function fieldsOf(schema: Schema): readonly Field[] | undefined {
  const whole = resolve(schema, schema);
  if (!isSchema(whole["properties"])) return whole["additionalProperties"] === false ? [] : undefined;
  const required = new Set(Array.isArray(whole["required"]) ? whole["required"] : []);
  return Object.entries(whole["properties"]).map(([name, part]) =>
    fieldOf(name, isSchema(part) ? part : {}, schema, required.has(name)),
  );
}

function fieldOf(name: string, given: Schema, root: Schema, required: boolean): Field {
  const told = resolve(given, root);
  const several = alternatives(told, root);
  const left = several.filter((each) => each["type"] !== "null");
  const nullable = left.length < several.length || told["type"] === "null";
  const schema = left.length === 1 && left[0] !== undefined ? left[0] : told;
  const choices = choicesOf(schema);
  const kind = left.length > 1 ? "json" : kindOf(schema, choices);
  const sample = kind === "json" && left[0] !== undefined ? JSON.stringify(sampleOf(left[0], root, 0)) : "";
  return {
    name,
    schema,
    kind,
    sample: UNTELLING.has(sample) ? "" : sample,
    required,
    nullable,
    choices,
    description: text(given["description"]) || text(told["description"]) || text(schema["description"]),
    fallback: given["default"] ?? told["default"],
    type: left.map((each) => typeName(each, root)).join(" or ") + (nullable ? " or null" : ""),
    loose: left.length > 1 && left.some((each) => each["type"] === "string"),
  };
}

/** Return what a schema is one of: itself, where it leaves no choice. */
function alternatives(schema: Schema, root: Schema): readonly Schema[] {
  const { anyOf, oneOf, type } = schema;
  const listed = Array.isArray(anyOf) ? anyOf : Array.isArray(oneOf) ? oneOf : undefined;
  if (listed !== undefined) return listed.filter(isSchema).map((each) => resolve(each, root));
  if (Array.isArray(type)) return type.map((each) => (each === "null" ? NULL : { ...schema, type: each }));
  return [schema];
}

function choicesOf(schema: Schema): readonly unknown[] {
  if ("const" in schema) return [schema["const"]];
  return Array.isArray(schema["enum"]) ? schema["enum"] : [];
}

function kindOf(schema: Schema, choices: readonly unknown[]): Kind {
  if (choices.length > 0) return "choice";
  const { type } = schema;
  if (type === "string") return isFile(schema) ? "file" : "text";
  if (type === "number" || type === "integer") return "number";
  return type === "boolean" ? "boolean" : "json";
}

function isFile(schema: Schema): boolean {
  return FILES.has(text(schema["format"])) || FILES.has(text(schema["contentEncoding"]));
}

/** Return the least that a schema takes, as far as that can be told. */
function sampleOf(given: Schema, root: Schema, depth: number): unknown {
  const schema = alternatives(resolve(given, root), root)[0] ?? {};
  if (schema["default"] !== undefined) return schema["default"];
  const [choice] = choicesOf(schema);
  if (choice !== undefined) return choice;
  const { type, items, properties, required } = schema;
  if (type === "string") return "";
  if (type === "number" || type === "integer") return schema["minimum"] ?? (Number(schema["exclusiveMinimum"] ?? -1) + 1);
  if (type === "boolean") return false;
  if (depth > DEEPEST) return null;
  if (type === "array") return isSchema(items) && Object.keys(items).length > 0 ? [sampleOf(items, root, depth + 1)] : [];
  if (type !== "object") return null;
  const names = Array.isArray(required) ? required.map(String) : [];
  const parts = isSchema(properties) ? properties : {};
  const value = (name: string): unknown => (isSchema(parts[name]) ? sampleOf(parts[name], root, depth + 1) : null);
  return Object.fromEntries(names.map((name) => [name, value(name)]));
}

function typeName(schema: Schema, root: Schema): string {
  const { type } = schema;
  if (type === "array") {
    const items = isSchema(schema["items"]) ? resolve(schema["items"], root) : {};
    return `list of ${typeof items["type"] === "string" ? items["type"] : "any"}`;
  }
  if (type === "string" && isFile(schema)) return "file";
  return typeof type === "string" ? type : "any";
}

/** Return what a schema refers to within its document, with what it says itself on top. */
function resolve(schema: Schema, root: Schema): Schema {
  let found = schema;
  for (let steps = 0; typeof found["$ref"] === "string" && steps < 16; steps += 1) {
    const { $ref, ...own } = found;
    found = { ...pointed(String($ref), root), ...own };
  }
  return found;
}

function pointed(reference: string, root: Schema): Schema {
  let at: unknown = root;
  for (const part of reference.replace(/^#\/?/, "").split("/").filter(Boolean)) {
    at = isSchema(at) ? at[decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~")] : undefined;
  }
  return isSchema(at) ? at : {};
}

function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
