export class Misfit extends Error {
}
export function numberOf(text, schema) {
    const value = Number(text);
    if (!Number.isFinite(value))
        throw new Misfit("a number is needed");
    if (schema["type"] === "integer") {
        if (!Number.isInteger(value))
            throw new Misfit("a whole number is needed");
        if (!Number.isSafeInteger(value))
            throw new Misfit("this page cannot tell whole numbers of that size apart");
    }
    const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
    if (typeof minimum === "number" && value < minimum)
        throw new Misfit(`at least ${minimum}`);
    if (typeof maximum === "number" && value > maximum)
        throw new Misfit(`at most ${maximum}`);
    if (typeof exclusiveMinimum === "number" && value <= exclusiveMinimum)
        throw new Misfit(`more than ${exclusiveMinimum}`);
    if (typeof exclusiveMaximum === "number" && value >= exclusiveMaximum)
        throw new Misfit(`less than ${exclusiveMaximum}`);
    if (schema["type"] === "integer" && typeof multipleOf === "number" && value % multipleOf !== 0) {
        throw new Misfit(`a multiple of ${multipleOf}`);
    }
    return value;
}
export function checkText(text, schema) {
    const length = [...text].length;
    const { minLength, maxLength } = schema;
    if (typeof minLength === "number" && length < minLength) {
        throw new Misfit(length === 0 ? "a value is needed" : `at least ${minLength} characters (there are ${length})`);
    }
    if (typeof maxLength === "number" && length > maxLength) {
        throw new Misfit(`at most ${maxLength} characters (there are ${length})`);
    }
}
export function jsonOf(text, field) {
    let value;
    try {
        value = JSON.parse(text);
    }
    catch (error) {
        if (field.loose)
            return text;
        throw new Misfit(`this is no JSON: ${error instanceof Error ? error.message : String(error)}`);
    }
    const { type } = field.schema;
    if (value === null && field.nullable)
        return value;
    if (type === "array" && !Array.isArray(value))
        throw new Misfit("a list is needed, such as [1, 2]");
    if (type === "object" && (typeof value !== "object" || value === null || Array.isArray(value))) {
        throw new Misfit('an object is needed, such as {"name": 1}');
    }
    return value;
}
const LARGEST = 11 * 1024 * 1024;
export async function base64Of(file) {
    if (file.size > LARGEST)
        throw new Misfit(`the file has ${file.size} bytes, and ${LARGEST} is the most that can be sent`);
    const url = await new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(String(reader.result));
        reader.onerror = () => reject(new Misfit(`the file cannot be read: ${reader.error?.message ?? "no reason given"}`));
        reader.readAsDataURL(file);
    });
    return url.slice(url.indexOf(",") + 1).replaceAll("+", "-").replaceAll("/", "_");
}
