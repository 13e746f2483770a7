/** One call being read, over as many connections as it takes. */

import { Abort } from "./abort.js";
import type { Retry } from "./backoff.js";
import { Backoff, safeToRepeat, sleep } from "./backoff.js";
import { CallCancelled, CallError, ConnectionFailed, PenstockError } from "./errors.js";
import { ReplayTruncated, StreamTruncated, named } from "./errors.js";
import type { Frame, Metrics } from "./frame.js";
import { failureOf } from "./outcome.js";
import { Progress, WITH_ITEM } from "./progress.js";
import { checked } from "./request.js";
import type { CancelOutcome, Reply, Transport } from "./transport.js";
import { Dropped } from "./transport.js";

const END_MS = 500; // how long the end of a response may trail the terminal frame

/** What a stream reads. */
export interface Source {
  readonly transport: Transport;
  readonly retry: Retry;
  /** Opens the call; undefined where it was opened before, and is read again. */
  readonly open: ((signal: AbortSignal) => Promise<Reply>) | undefined;
  /** The same request again runs nothing twice. */
  readonly idempotent: boolean;
  /** Nobody else ever gave a call the name that this one has. */
  readonly ownName: boolean;
  /** It can be read on; not so where items are sent, as it is not known which of them came. */
  readonly resumable: boolean;
  readonly correlationId: string | undefined;
  readonly taskId: string | undefined;
  /** Number of the last frame that is not wanted; -1 for all. */
  readonly after: number;
  readonly signal: AbortSignal | undefined;
  /** Cancels a call by its id, again if the connection breaks meanwhile. */
  readonly cancel: (id: string) => Promise<CancelOutcome>;
}

/**
 * A call's items, as they come.
 *
 * ```ts
 * for await (const item of client.stream("predict", {prompt: "A fox"})) console.log(item);
 * ```
 *
 * Where the connection drops, it is read on from behind the last frame.  Leaving the loop leaves the call:
 * what becomes of it is decided by its `onDisconnect`.  Iterating raises `CallError` (refused, or failed),
 * `CallCancelled`, `StreamTruncated` (it broke off, and could not be read on) and `RemoteProtocolError`.
 */
export class Stream<T = unknown> implements AsyncIterable<T> {
  private readonly progress: Progress;
  private readonly backoff: Backoff;
  private readonly abort: Abort;
  private reply: Reply | undefined;
  private opened: boolean;
  private batch: readonly Frame[] = [];
  private at = 0;
  private doubt: unknown; // what left open whether the call was accepted

  /** Made by `client.stream`, `client.workflow` and `client.resume`. */
  constructor(private readonly source: Source) {
    this.progress = new Progress(source.taskId, source.after);
    this.backoff = new Backoff(source.retry);
    this.abort = new Abort(source.signal, () => this.cancel());
    this.opened = source.open === undefined;
  }

  /** The caller's name for the call; undefined where it has none yet. */
  get taskId(): string | undefined {
    return this.progress.taskId;
  }

  /** The server's own id of the call. */
  get requestId(): string | undefined {
    return this.progress.requestId;
  }

  /** `X-Request-Id` of its request, which the server logs; undefined where it was opened before. */
  get correlationId(): string | undefined {
    return this.source.correlationId;
  }

  /** Number of the last frame read, -1 before the first: where `client.resume` goes on. */
  get lastSeq(): number {
    return this.progress.lastSeq;
  }

  /** Where the call is in its life, as its frames say; `opening` before the first. */
  get status(): string {
    return this.progress.status;
  }

  /** The text so far: the items' `chunk` values joined; of items without one, the last `text`. */
  get text(): string {
    return this.progress.text;
  }

  /** What was measured, times in milliseconds; empty until the call has completed. */
  get metrics(): Metrics {
    return this.progress.metrics;
  }

  /**
   * Cancel the call; its end ends the stream.
   *
   * @throws CallError `not_found`: the server does not know it (yet, or any more).
   */
  async cancel(): Promise<CancelOutcome> {
    const id = this.requestId ?? this.taskId;
    if (id === undefined) throw new CallError("the call has no name yet; read its first frame", "not_found");
    return this.source.cancel(id);
  }

  /**
   * Hand an item to a command that takes a stream; the stream was opened with `moreInput`, and something of it
   * was read.
   *
   * @throws CallError It cannot be sent.  What the server refuses is raised by the next read.
   */
  send(item: unknown): void {
    this.tell("input", checked(item));
  }

  /** Say that no more items come. */
  endInput(): void {
    this.tell("input_end");
  }

  /** Open the call, if that was not done yet. */
  async open(): Promise<void> {
    if (this.progress.status === "opening" && this.batch.length === 0) this.batch = await this.read();
  }

  /** Leave: read no more. */
  close(): void {
    this.abort.done();
    this.reply?.close();
    this.reply = undefined;
  }

  [Symbol.asyncIterator](): AsyncIterator<T, undefined> {
    return {
      // What is there is given at once: most items then cost no turn of the event loop more than they must.
      next: () => {
        try {
          const frame = this.buffered();
          if (frame !== undefined) return Promise.resolve({ done: false, value: frame.data as T });
        } catch (error) {
          return Promise.reject(error as Error);
        }
        return this.fetched();
      },
      return: async () => (this.close(), { done: true, value: undefined }),
    };
  }

  /** The frames themselves, `accepted`, notes and the terminal one included; that tells how the call ended. */
  async *frames(): AsyncGenerator<Frame, void, undefined> {
    try {
      for (let frame = await this.frame(); frame !== undefined; frame = await this.frame()) yield frame;
    } finally {
      this.close();
    }
  }

  private tell(kind: "input" | "input_end", data?: unknown): void {
    if (this.reply === undefined) throw new CallError("the stream is not open: open() it", "failed_precondition");
    this.reply.tell(kind, data);
  }

  /** Return the next frame with an item, if one is there. */
  private buffered(): Frame | undefined {
    while (this.at < this.batch.length) {
      const frame = this.seen();
      if (frame.data !== undefined && WITH_ITEM.has(frame.status)) return frame;
    }
    return undefined;
  }

  private async fetched(): Promise<IteratorResult<T, undefined>> {
    while (this.progress.terminal === undefined) {
      this.batch = await this.read();
      this.at = 0;
      const frame = this.buffered();
      if (frame !== undefined) return { done: false, value: frame.data as T };
    }
    this.finish();
    this.raiseFailure();
    return { done: true, value: undefined };
  }

  private async frame(): Promise<Frame | undefined> {
    if (this.at === this.batch.length) {
      if (this.progress.terminal !== undefined) return this.finish();
      this.batch = await this.read();
      this.at = 0;
    }
    return this.seen();
  }

  private seen(): Frame {
    const frame = this.batch[this.at] as Frame;
    this.at += 1;
    try {
      this.progress.see(frame);
    } catch (error) {
      this.close();
      throw named(error, this.correlationId);
    }
    return frame;
  }

  private async read(): Promise<readonly Frame[]> {
    for (;;) {
      try {
        this.reply ??= await this.connect();
        const frames = await this.reply.next();
        if (frames === undefined) throw new Dropped("the stream ended without its terminal frame");
        const first = frames[0];
        // A refusal to read on comes as a frame over WebSocket, where HTTP has a status.
        if (first?.seq === undefined && first?.status === "error") this.progress.see(first);
        this.backoff.reset();
        return frames;
      } catch (error) {
        this.reply?.close();
        this.reply = undefined;
        await this.recover(error).catch((told: unknown) => {
          throw named(told, this.correlationId);
        });
      }
    }
  }

  private async connect(): Promise<Reply> {
    const { transport, open } = this.source;
    const named = this.requestId ?? this.taskId;
    // A call that was opened with an idempotency key and no name is found by that key until it has said its id.
    if (this.opened && (named !== undefined || open === undefined)) {
      const names = { taskId: this.taskId, requestId: this.requestId };
      return transport.resume(names, this.lastSeq, this.abort.dropped);
    }
    const reply = await (open as NonNullable<typeof open>)(this.abort.dropped);
    this.opened = true;
    return reply;
  }

  /** Wait until it may be tried again, or raise what is to be told. */
  private async recover(error: unknown): Promise<void> {
    if (this.abort.dropped.aborted) throw this.left(error);
    const again = this.mayTry(error);
    const atLeastS = error instanceof CallError ? error.retryAfterS : undefined;
    if (again && (await this.backoff.pause(this.abort.dropped, atLeastS))) return;
    const wanted = this.abort.asked;
    const known = this.opened && this.source.open !== undefined;
    this.close();
    if (wanted) throw this.left(error);
    if (this.doubt !== undefined && this.requestId === undefined) throw this.doubt;
    throw known || error instanceof Dropped ? this.truncated(error) : error;
  }

  private mayTry(error: unknown): boolean {
    const { idempotent, ownName, resumable } = this.source;
    if (this.opened) return resumable && worthResuming(error);
    if (safeToRepeat(error, idempotent)) return true;
    // It may have been accepted; if so, it is there under its name.
    if (!(error instanceof ConnectionFailed) || !ownName || !resumable) return false;
    this.doubt = error;
    this.opened = true;
    return true;
  }

  private left(error: unknown): PenstockError {
    if (!this.abort.asked) return this.truncated(error);
    this.abort.done();
    return new CallCancelled(`call ${this.taskId ?? ""} was cancelled (reason: caller)`, "caller", this.abort.reason);
  }

  private truncated(error: unknown): PenstockError {
    const ours = error instanceof PenstockError && !(error instanceof CallError);
    if (ours || error instanceof ReplayTruncated) return error;
    const why = error instanceof Error ? error.message : String(error);
    const what = `the stream of ${this.taskId ?? "a call"} ended after frame ${this.lastSeq}`;
    return new StreamTruncated(`${what}, without its terminal frame, and cannot be read on: ${why}`, { cause: error });
  }

  private raiseFailure(): void {
    const failure = this.progress.terminal && failureOf(this.progress.terminal);
    if (failure !== undefined) throw named(failure, this.correlationId);
  }

  /** Let the response come to its end, so that its connection can be used again. */
  private finish(): undefined {
    const reply = this.reply;
    this.reply = undefined;
    const end = (): void => (reply?.close(), this.abort.done());
    if (reply === undefined) end();
    else void Promise.race([reply.next().catch(() => undefined), sleep(END_MS, this.abort.dropped)]).then(end);
    return undefined;
  }
}

/** Whether a call that is known to the server can be asked for again. */
function worthResuming(error: unknown): boolean {
  if (error instanceof Dropped || error instanceof ConnectionFailed) return true;
  return error instanceof CallError && error.retryable;
}
