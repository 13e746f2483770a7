/** What a page would do: uses the platform's own WebSocket, and prints what came. */

import { CallCancelled, Client } from "../src/index.js";

const client = new Client(process.argv[2] ?? "");
const items: unknown[] = [];
for await (const item of client.stream("count", { n: 2 })) items.push(item);

const held = client.stream("hold");
let cancelled = "";
try {
  for await (const _ of held) await held.cancel();
} catch (error) {
  if (!(error instanceof CallCancelled)) throw error;
  cancelled = error.reason;
}
client.close();
console.log(JSON.stringify({ global: typeof WebSocket === "function", items, cancelled }));
