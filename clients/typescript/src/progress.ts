/** How far one call has been read, by the rules of a call's life (docs/protocol.md, section 3). */

import { RemoteProtocolError } from "./errors.js";
import type { Frame, Metrics } from "./frame.js";
import { endsCall } from "./frame.js";
import { errorOf } from "./outcome.js";

/** What the frames of a call have said so far. */
export class Progress {
  taskId: string | undefined;
  requestId: string | undefined;
  status = "opening";
  lastSeq: number;
  terminal: Frame | undefined;
  private heard: string[] = [];

  constructor(taskId: string | undefined, after: number) {
    this.taskId = taskId;
    this.lastSeq = after;
  }

  /** The items' `chunk` values joined; of items without one, the last `text`. */
  get text(): string {
    this.heard = [this.heard.join("")];
    return this.heard[0] ?? "";
  }

  /** What was measured; empty until the call has completed. */
  get metrics(): Metrics {
    return this.terminal?.metrics ?? {};
  }

  /**
   * Check a frame and remember what it says.
   *
   * @throws CallError It is a refusal, or says that the stream cannot go on.
   * @throws RemoteProtocolError A frame is missing, comes twice, or follows the last.
   */
  see(frame: Frame): void {
    if (frame.status === "streaming" && frame.seq === this.lastSeq + 1 && this.status === "streaming") {
      this.lastSeq = frame.seq; // what nearly every frame does
      if (frame.data !== undefined) this.hear(frame.data);
      return;
    }
    if (frame.seq === undefined && frame.status === "error") throw errorOf(frame);
    if (frame.seq !== this.lastSeq + 1 || this.terminal !== undefined) {
      throw new RemoteProtocolError(`frame ${frame.seq} of ${this.taskId} came behind frame ${this.lastSeq}`);
    }
    this.lastSeq = frame.seq;
    if (frame.status === "accepted") {
      this.taskId = frame.task_id ?? this.taskId;
      this.requestId = frame.request_id;
    }
    if (endsCall(frame)) this.terminal = frame;
    if (!NOTES.has(frame.status)) this.status = frame.status;
    if (frame.data !== undefined && WITH_ITEM.has(frame.status)) this.hear(frame.data);
  }

  private hear(item: unknown): void {
    if (typeof item === "string") {
      this.heard.push(item);
    } else if (typeof item === "object" && item !== null) {
      const { chunk, text } = item as { chunk?: unknown; text?: unknown };
      if (typeof chunk === "string") this.heard.push(chunk);
      else if (typeof text === "string") this.heard = [text];
    }
  }
}

/** Statuses of frames that carry an item, or an answer. */
export const WITH_ITEM: ReadonlySet<string> = new Set(["streaming", "completed"]);

const NOTES: ReadonlySet<string> = new Set(["queued", "progress"]);
