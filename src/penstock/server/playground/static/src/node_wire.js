import { createHash, randomBytes } from "node:crypto";
import { request as overTcp } from "node:http";
import { request as overTls } from "node:https";
import { CallError } from "./errors.js";
import { parseFrame } from "./frame.js";
import { codeOfStatus, errorOf } from "./outcome.js";
import { Opcode, PacketReader, packet } from "./packet.js";
import { unanswered } from "./wire.js";
const CONNECT_MS = 10_000;
const CLOSE_MS = 2_000;
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
export function dialFromNode({ url, apiKey }, listener) {
    const key = randomBytes(16).toString("base64");
    const headers = {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": key,
    };
    if (apiKey !== undefined)
        headers["authorization"] = `Bearer ${apiKey}`;
    const target = new URL(url);
    target.protocol = url.protocol.replace("ws", "http");
    const asking = (url.protocol === "wss:" ? overTls : overTcp)(target, { headers, agent: false });
    return new Promise((resolve, reject) => {
        asking.setTimeout(CONNECT_MS, () => asking.destroy(new Error(`no answer within ${CONNECT_MS} ms`)));
        asking.on("error", (error) => reject(unanswered(url, error.message || String(error), error)));
        asking.on("response", (response) => void refused(url, response).then(reject));
        asking.on("upgrade", (response, socket, head) => {
            if (response.headers["sec-websocket-accept"] === accepting(key)) {
                resolve(new NodeWire(socket, head, listener));
            }
            else {
                socket.destroy();
                reject(unanswered(url, "the handshake is answered wrongly"));
            }
        });
        asking.end();
    });
}
class NodeWire {
    socket;
    listener;
    packets = new PacketReader();
    over = false;
    constructor(socket, head, listener) {
        this.socket = socket;
        this.listener = listener;
        socket.setTimeout?.(0);
        socket.on("data", (bytes) => this.feed(bytes));
        socket.on("error", (error) => this.end(error.message));
        socket.on("close", () => this.end("without a close frame"));
        if (head.length > 0)
            queueMicrotask(() => this.feed(head));
    }
    send(text) {
        this.socket.write(packet(Opcode.text, Buffer.from(text)));
    }
    close() {
        this.socket.end(packet(Opcode.close, Buffer.from([0x03, 0xe8])));
        this.end("closed by this side");
        setTimeout(() => this.socket.destroy(), CLOSE_MS).unref();
    }
    feed(bytes) {
        if (this.over)
            return;
        try {
            for (const { opcode, payload } of this.packets.feed(bytes))
                this.take(opcode, payload);
        }
        catch (error) {
            this.end(String(error));
            this.socket.destroy();
        }
    }
    take(opcode, payload) {
        if (opcode === Opcode.text)
            this.listener.message(payload.toString("utf8"));
        else if (opcode === Opcode.ping)
            this.socket.write(packet(Opcode.pong, payload));
        else if (opcode === Opcode.close) {
            const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
            this.end(`closed by the server: ${code} ${payload.subarray(2).toString("utf8")}`.trimEnd());
            this.socket.end(packet(Opcode.close, payload.subarray(0, 2)));
        }
    }
    end(reason) {
        if (this.over)
            return;
        this.over = true;
        this.listener.closed(reason);
    }
}
function accepting(key) {
    return createHash("sha1").update(key + GUID).digest("base64");
}
async function refused(url, response) {
    const pieces = [];
    const status = response.statusCode ?? 0;
    try {
        for await (const piece of response)
            pieces.push(piece);
        return errorOf(parseFrame(Buffer.concat(pieces).toString("utf8")), { status, retryAfterS: undefined });
    }
    catch {
        const what = `${url.href} answered HTTP ${status} and no WebSocket: is it penstock that serves there?`;
        return new CallError(what, codeOfStatus(status));
    }
}
