/** Frames of RFC 6455, section 5.2: written by a client, read from a server. */

import { randomBytes } from "node:crypto";

import { MAX_FRAME } from "./lines.js";

export const Opcode = { more: 0, text: 1, close: 8, ping: 9, pong: 10 } as const;

/** What came: a whole message, or a control frame. */
export interface Packet {
  readonly opcode: number;
  readonly payload: Buffer;
}

const FINAL = 0x80;
const MASKED = 0x80;

/** Return the bytes of one frame, masked as a client must. */
export function packet(opcode: number, payload: Buffer): Buffer {
  const size = payload.length;
  const head = Buffer.alloc(size < 126 ? 2 : size < 65_536 ? 4 : 10);
  head[0] = FINAL | opcode;
  head[1] = MASKED | (size < 126 ? size : size < 65_536 ? 126 : 127);
  if (head.length === 4) head.writeUInt16BE(size, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(size), 2);
  const mask = randomBytes(4);
  const masked = Buffer.from(payload);
  for (let at = 0; at < size; at += 1) masked[at] = (masked[at] as number) ^ (mask[at & 3] as number);
  return Buffer.concat([head, mask, masked]);
}

/** Reads frames, wherever the bytes were cut, and joins the parts of a message. */
export class PacketReader {
  private waiting: Buffer[] = [];
  private size = 0;
  private needed = 2; // bytes before which looking again is of no use
  private parts: Buffer[] = [];

  /**
   * Return what `bytes` complete.
   *
   * @throws RangeError A frame is too large.
   */
  feed(bytes: Buffer): Packet[] {
    this.waiting.push(bytes);
    this.size += bytes.length;
    if (this.size < this.needed) return [];
    let rest = this.waiting.length === 1 ? bytes : Buffer.concat(this.waiting);
    const found: Packet[] = [];
    for (let end = this.measure(rest); end <= rest.length; end = this.measure(rest)) {
      this.take(rest.subarray(0, end), found);
      rest = rest.subarray(end);
    }
    this.waiting = [rest];
    this.size = rest.length;
    return found;
  }

  /** Return where the first frame of `bytes` ends, as far as can be told. */
  private measure(bytes: Buffer): number {
    this.needed = 2;
    if (bytes.length >= 2) {
      const head = headOf(bytes);
      this.needed = bytes.length < head ? head : head + sizeOf(bytes, head);
    }
    if (this.needed > MAX_FRAME) throw new RangeError(`the server sent a frame of more than ${MAX_FRAME} bytes`);
    return this.needed;
  }

  private take(frame: Buffer, found: Packet[]): void {
    const first = frame[0] as number;
    const opcode = first & 0x0f;
    const payload = frame.subarray(headOf(frame));
    if (opcode >= Opcode.close) {
      found.push({ opcode, payload });
      return;
    }
    this.parts.push(payload);
    if ((first & FINAL) === 0) return;
    found.push({ opcode: Opcode.text, payload: this.parts.length === 1 ? payload : Buffer.concat(this.parts) });
    this.parts = [];
  }
}

function headOf(bytes: Buffer): number {
  const short = (bytes[1] as number) & 0x7f;
  return short === 126 ? 4 : short === 127 ? 10 : 2;
}

function sizeOf(bytes: Buffer, head: number): number {
  if (head === 4) return bytes.readUInt16BE(2);
  return head === 10 ? Number(bytes.readBigUInt64BE(2)) : (bytes[1] as number) & 0x7f;
}
