import { ConnectionFailed } from "./errors.js";
export async function dial(address, listener) {
    if (typeof globalThis.WebSocket === "function")
        return dialHere(address, listener);
    const { dialFromNode } = await import("./node_wire.js");
    return dialFromNode(address, listener);
}
export function unanswered(url, why, cause) {
    const advice = "start a server with `penstock run PROJECT`, or check the address and the key";
    return new ConnectionFailed(`no WebSocket answers at ${url.href} (${why}): ${advice}`, false, cause);
}
function dialHere({ url, apiKey }, listener) {
    const socket = new WebSocket(url, apiKey === undefined ? [] : ["penstock", `bearer.${apiKey}`]);
    return new Promise((resolve, reject) => {
        socket.onmessage = (event) => listener.message(String(event.data));
        socket.onclose = (event) => {
            reject(unanswered(url, `closed with ${event.code}`));
            listener.closed(`closed: ${event.code} ${event.reason}`.trimEnd());
        };
        socket.onopen = () => resolve({ send: (text) => socket.send(text), close: () => socket.close() });
    });
}
