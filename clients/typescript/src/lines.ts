/** Bytes of a stream, taken apart into lines. */

import { CallError } from "./errors.js";

/** Largest frame that is taken, in characters; the server keeps no larger one. */
export const MAX_FRAME = 64 * 1024 * 1024;

/** Splits NDJSON into its lines, wherever the bytes were cut. */
export class LineSplitter {
  private readonly decoder = new TextDecoder("utf-8");
  private begun: string[] = []; // pieces of a line whose end has not come: joined once, not for each piece
  private size = 0;

  /** @param blank Whether lines with nothing in them are wanted, too. */
  constructor(private readonly blank = false) {}

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
    const lines = whole.split("\n");
    return this.blank ? lines : lines.filter((line) => line !== "" && line !== "\r");
  }

  private keep(piece: string): void {
    this.begun.push(piece);
    this.size += piece.length;
    if (this.size > MAX_FRAME) throw new CallError(`a frame is longer than ${MAX_FRAME} characters`, "too_large");
  }
}

/** Splits server-sent events into their data; what else they say, the frames say as well. */
export class EventSplitter {
  private readonly lines = new LineSplitter(true);
  private data: string[] = [];

  /**
   * Return the data of the events that `bytes` complete.
   *
   * @throws CallError `too_large`: a line does not end.
   */
  feed(bytes: Uint8Array): string[] {
    const events: string[] = [];
    for (const text of this.lines.feed(bytes)) {
      const line = text.endsWith("\r") ? text.slice(0, -1) : text;
      if (line.startsWith("data:")) this.data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
      if (line !== "" || this.data.length === 0) continue;
      events.push(this.data.join("\n"));
      this.data = [];
    }
    return events;
  }
}
