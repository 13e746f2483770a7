/** What came for one call over a WebSocket and was not read yet. */

import { ConnectionFailed } from "./errors.js";
import type { Frame } from "./frame.js";
import { endsCall } from "./frame.js";
import type { Reply } from "./transport.js";
import { Dropped } from "./transport.js";

/** Frames on their way from a socket to the reader of one call. */
export class Inbox implements Reply {
  /** Nothing more comes. */
  ended = false;
  /** The server's own id of the call, once it is known. */
  requestId: string | undefined;
  private frames: Frame[] = [];
  private fault: string | undefined;
  private wake: (() => void) | undefined;

  /**
   * @param name What the call is named in messages.
   * @param alias The request id of a call that is read again: what refuses that is named so.
   * @param socket Is told what the caller says, and that nobody reads it any more.
   */
  constructor(
    readonly name: string,
    alias: string | undefined,
    private readonly socket: { leave(inbox: Inbox): void; send(fields: Readonly<Record<string, unknown>>): void },
  ) {
    this.requestId = alias;
  }

  put(frame: Frame): void {
    this.frames.push(frame);
    this.requestId = frame.request_id ?? this.requestId;
    if (endsCall(frame) || frame.seq === undefined) this.ended = true;
    this.wake?.();
  }

  /** The connection is gone, which matters only where the call has not ended. */
  fail(reason: string): void {
    if (!this.ended) this.fault = reason;
    this.end();
  }

  end(): void {
    this.ended = true;
    this.wake?.();
  }

  close(): void {
    this.socket.leave(this);
    this.end();
  }

  tell(kind: "input" | "input_end", data?: unknown): void {
    this.socket.send({ type: kind, task_id: this.requestId ?? this.name, ...(kind === "input" && { data }) });
  }

  /**
   * Return the first frame, and leave it to be read.
   *
   * @throws ConnectionFailed Nothing came.
   */
  async first(): Promise<Frame> {
    await this.arrival();
    const frame = this.frames[0];
    if (frame !== undefined) return frame;
    const why = this.fault ?? "left";
    throw new ConnectionFailed(`the connection broke before there was an answer (${why})`, true);
  }

  async next(): Promise<readonly Frame[] | undefined> {
    await this.arrival();
    if (this.frames.length === 0) {
      if (this.fault !== undefined) throw new Dropped(`the connection broke within the stream (${this.fault})`);
      return undefined;
    }
    const frames = this.frames;
    this.frames = [];
    return frames;
  }

  private async arrival(): Promise<void> {
    while (this.frames.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    this.wake = undefined;
  }
}
