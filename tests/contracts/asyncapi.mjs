// Reads AsyncAPI documents, a list of them as JSON on standard input, with the official parser; prints what
// that has to say of each, and what it found in it.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
const found = [];
for (const given of JSON.parse(readFileSync(0, "utf8"))) {
  const { document, diagnostics } = await parser.parse(given);
  found.push({
    diagnostics: diagnostics.map(({ severity, code, message, path }) => [severity, code, message, path.join("/")]),
    channels: document?.channels().all().map((channel) => channel.address()),
    operations: document?.operations().all().map((operation) => ({
      id: operation.id(),
      messages: operation.messages().all().map((message) => message.name()),
      replies: operation.reply()?.messages().all().map((message) => message.name()),
    })),
  });
}
console.log(JSON.stringify(found));
