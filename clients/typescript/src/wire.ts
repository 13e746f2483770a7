/** One WebSocket: dialled and spoken to, by what this platform has. */

import { ConnectionFailed } from "./errors.js";

/** Where and how to dial. */
export interface Address {
  readonly url: URL;
  readonly apiKey: string | undefined;
}

/** Told what comes. */
export interface Listener {
  message(text: string): void;
  /** Called once; nothing comes any more. */
  closed(reason: string): void;
}

/** An open WebSocket. */
export interface Wire {
  send(text: string): void;
  /** Close it; the listener is told. */
  close(): void;
}

/**
 * Connect.
 *
 * @throws ConnectionFailed No server answers, or (in a page, which is not told why) it refuses.
 * @throws CallError It refuses.
 */
export async function dial(address: Address, listener: Listener): Promise<Wire> {
  if (typeof globalThis.WebSocket === "function") return dialHere(address, listener);
  const { dialFromNode } = await import("./node_wire.js"); // before version 22, Node has no WebSocket
  return dialFromNode(address, listener);
}

/** Return what is raised where nobody answers a handshake. */
export function unanswered(url: URL, why: string, cause?: unknown): ConnectionFailed {
  const advice = "start a server with `penstock run PROJECT`, or check the address and the key";
  return new ConnectionFailed(`no WebSocket answers at ${url.href} (${why}): ${advice}`, false, cause);
}

function dialHere({ url, apiKey }: Address, listener: Listener): Promise<Wire> {
  // A page cannot set headers here, so the key travels as a subprotocol (docs/protocol.md, 5.19).
  const socket = new WebSocket(url, apiKey === undefined ? [] : ["penstock", `bearer.${apiKey}`]);
  return new Promise((resolve, reject) => {
    socket.onmessage = (event: MessageEvent) => listener.message(String(event.data));
    socket.onclose = (event) => {
      reject(unanswered(url, `closed with ${event.code}`));
      listener.closed(`closed: ${event.code} ${event.reason}`.trimEnd());
    };
    socket.onopen = () => resolve({ send: (text) => socket.send(text), close: () => socket.close() });
  });
}
