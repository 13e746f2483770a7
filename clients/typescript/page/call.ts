/** One call from a page: read to its end, with time for the page in between. */

import type { Detail, Frame, Metrics, Stream } from "../src/index.js";
import { CallCancelled, CallError, PenstockError } from "../src/index.js";
import { Breath } from "./frames.js";
import { Meter } from "./meter.js";

/** How a call ended. */
export interface Ending {
  readonly status: "completed" | "cancelled" | "error";
  readonly metrics: Metrics;
  /** Why, where it did not complete. */
  readonly error?: string;
  readonly code?: string;
  readonly retryable?: boolean;
  readonly details: readonly Detail[];
}

/** Opens a stream that ends when the signal is aborted. */
export type Opener = (signal: AbortSignal, correlationId: string) => Stream;

/** A call that this page has opened. */
export class PageCall {
  readonly meter: Meter;
  readonly stream: Stream;
  private readonly aborting = new AbortController();

  constructor(
    open: Opener,
    readonly correlationId: string,
  ) {
    this.meter = new Meter(performance.now());
    this.stream = open(this.aborting.signal, correlationId);
  }

  /** Cancel it, on the server as well. */
  cancel(): void {
    this.aborting.abort();
  }

  /** Read it to its end; `see` gets each frame. */
  async read(see: (frame: Frame) => void): Promise<Ending> {
    const breath = new Breath();
    let last: Frame | undefined;
    try {
      for await (const frame of this.stream.frames()) {
        if (frame.status === "streaming") this.meter.see(performance.now());
        see(frame);
        last = frame;
        if (breath.due) await breath.take();
      }
    } catch (error) {
      if (!(error instanceof PenstockError)) throw error;
      return endingOfError(error);
    } finally {
      breath.close();
    }
    return endingOf(last);
  }
}

function endingOf(frame: Frame | undefined): Ending {
  const told = { metrics: frame?.metrics ?? {}, details: frame?.details ?? [] };
  if (frame?.status === "completed") return { status: "completed", ...told };
  if (frame?.status === "cancelled") return { status: "cancelled", error: frame.reason ?? "", ...told };
  return {
    status: "error",
    error: frame?.error ?? "the call ended without a word",
    code: frame?.code ?? "internal",
    retryable: frame?.retryable === true,
    ...told,
  };
}

/** Return what an error means for a call that it ended. */
export function endingOfError(error: PenstockError): Ending {
  const metrics = {};
  if (error instanceof CallCancelled) return { status: "cancelled", error: error.reason, metrics, details: [] };
  if (error instanceof CallError) {
    const { message, code, retryable, details } = error;
    return { status: "error", error: message, code, retryable, details, metrics };
  }
  return { status: "error", error: error.message, code: error.name, metrics, details: [] };
}
