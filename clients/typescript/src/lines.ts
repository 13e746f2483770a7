/** Bytes of a stream, taken apart into lines. */

import { CallError } from "./errors.js";

/** Largest frame that is taken, in characters; the server keeps no larger one. */
export const MAX_FRAME = 64 * 1024 * 1024;

/** Splits NDJSON into its lines, wherever the bytes were cut. */
export class LineSplitter {
  private readonly decoder = new TextDecoder("utf-8");
  private begun: string[] = []; // pieces of a line whose end has not come: joined once, not for each piece
  private size = 0;

  /**
   * Return the lines that `bytes` complete.
   *
   * @throws CallError `too_large`: a line does not end.
   */
  feed(bytes: Uint8Array): string[] {
    const text = this.decoder.decode(bytes, { stream: true });
    const end = text.lastIndexOf("\n");
    if (end < 0) {
      this.keep(text);
      return [];
    }
    const whole = this.begun.join("") + text.slice(0, end);
    this.begun = [];
    this.size = 0;
    this.keep(text.slice(end + 1));
    return whole.split("\n").filter((line) => line !== "" && line !== "\r");
  }

  private keep(piece: string): void {
    this.begun.push(piece);
    this.size += piece.length;
    if (this.size > MAX_FRAME) throw new CallError(`a frame is longer than ${MAX_FRAME} characters`, "too_large");
  }
}
