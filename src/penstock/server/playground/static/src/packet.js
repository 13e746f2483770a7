import { randomBytes } from "node:crypto";
import { MAX_FRAME } from "./lines.js";
export const Opcode = { more: 0, text: 1, close: 8, ping: 9, pong: 10 };
const FINAL = 0x80;
const MASKED = 0x80;
export function packet(opcode, payload) {
    const size = payload.length;
    const head = Buffer.alloc(size < 126 ? 2 : size < 65_536 ? 4 : 10);
    head[0] = FINAL | opcode;
    head[1] = MASKED | (size < 126 ? size : size < 65_536 ? 126 : 127);
    if (head.length === 4)
        head.writeUInt16BE(size, 2);
    if (head.length === 10)
        head.writeBigUInt64BE(BigInt(size), 2);
    const mask = randomBytes(4);
    const masked = Buffer.from(payload);
    for (let at = 0; at < size; at += 1)
        masked[at] = masked[at] ^ mask[at & 3];
    return Buffer.concat([head, mask, masked]);
}
export class PacketReader {
    waiting = [];
    size = 0;
    needed = 2;
    parts = [];
    feed(bytes) {
        this.waiting.push(bytes);
        this.size += bytes.length;
        if (this.size < this.needed)
            return [];
        let rest = this.waiting.length === 1 ? bytes : Buffer.concat(this.waiting);
        const found = [];
        for (let end = this.measure(rest); end <= rest.length; end = this.measure(rest)) {
            this.take(rest.subarray(0, end), found);
            rest = rest.subarray(end);
        }
        this.waiting = [rest];
        this.size = rest.length;
        return found;
    }
    measure(bytes) {
        this.needed = 2;
        if (bytes.length >= 2) {
            const head = headOf(bytes);
            this.needed = bytes.length < head ? head : head + sizeOf(bytes, head);
        }
        if (this.needed > MAX_FRAME)
            throw new RangeError(`the server sent a frame of more than ${MAX_FRAME} bytes`);
        return this.needed;
    }
    take(frame, found) {
        const first = frame[0];
        const opcode = first & 0x0f;
        const payload = frame.subarray(headOf(frame));
        if (opcode >= Opcode.close) {
            found.push({ opcode, payload });
            return;
        }
        this.parts.push(payload);
        if ((first & FINAL) === 0)
            return;
        found.push({ opcode: Opcode.text, payload: this.parts.length === 1 ? payload : Buffer.concat(this.parts) });
        this.parts = [];
    }
}
function headOf(bytes) {
    const short = bytes[1] & 0x7f;
    return short === 126 ? 4 : short === 127 ? 10 : 2;
}
function sizeOf(bytes, head) {
    if (head === 4)
        return bytes.readUInt16BE(2);
    return head === 10 ? Number(bytes.readBigUInt64BE(2)) : bytes[1] & 0x7f;
}
