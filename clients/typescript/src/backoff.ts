/** How long to wait before something is tried again. */

import { CallError, ConnectionFailed } from "./errors.js";

/** Bounds of trying again. */
export interface Retry {
  /** How often in a row, without success, something is tried again. */
  readonly attempts: number;
  /** Seconds before the second attempt; they double from then on. */
  readonly baseS: number;
  /** Most seconds between two attempts. */
  readonly capS: number;
}

export const RETRY: Retry = { attempts: 6, baseS: 0.1, capS: 5 };

/** Counts attempts in a row; each waits longer, by a random part so that clients do not come all at once. */
export class Backoff {
  private failed = 0;

  constructor(private readonly retry: Retry) {}

  /** Something went well. */
  reset(): void {
    this.failed = 0;
  }

  /**
   * Wait before the next attempt; return false if there is none left, or `signal` ended the wait.
   *
   * @param atLeastS What the server asked for, in seconds; past `capS` the caller decides better.
   */
  async pause(signal: AbortSignal | undefined, atLeastS = 0): Promise<boolean> {
    const spent = this.failed >= this.retry.attempts || atLeastS > this.retry.capS;
    if (spent || isAborted(signal)) return false;
    const bound = Math.min(this.retry.capS, this.retry.baseS * 2 ** this.failed);
    this.failed += 1;
    await sleep(1000 * Math.max(bound * (0.5 + Math.random() / 2), atLeastS), signal);
    return !isAborted(signal);
  }
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/**
 * Whether a request that failed so may be sent again without being run twice.
 *
 * A server that is busy, starts or stops refuses before anything runs (docs/protocol.md, 3.3).
 *
 * @param idempotent The same request again changes nothing.
 */
export function safeToRepeat(error: unknown, idempotent: boolean): error is CallError {
  if (error instanceof ConnectionFailed) return idempotent || !error.sent;
  if (!(error instanceof CallError) || !error.retryable) return false;
  return idempotent || error.code === "resource_exhausted" || error.code === "unavailable";
}

/** Wait for so many milliseconds, or until `signal` is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    if (isAborted(signal)) done();
  });
}
