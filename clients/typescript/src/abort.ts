/** A caller's AbortSignal, made a cancel on the server. */

import { sleep } from "./backoff.js";

/** A server waits 5 s for code that was cancelled, then ends the call all the same. */
const PATIENCE_MS = 10_000;

/** First cancels the call; only when that brings no end, ends the connection. */
export class Abort {
  private readonly dropping = new AbortController();

  /**
   * @param signal The caller's.
   * @param cancel Cancels the call on the server; rejects where the server does not know it.
   */
  constructor(
    private readonly signal: AbortSignal | undefined,
    private readonly cancel: () => Promise<unknown>,
  ) {
    signal?.addEventListener("abort", this.act);
    if (signal?.aborted === true) this.drop();
  }

  /** Aborted when the connection is to be ended. */
  get dropped(): AbortSignal {
    return this.dropping.signal;
  }

  /** Whether the caller wants no more. */
  get asked(): boolean {
    return this.signal?.aborted === true;
  }

  /** Why the caller wants no more, as it said. */
  get reason(): unknown {
    return this.signal?.reason;
  }

  /** End the connection. */
  drop(): void {
    this.dropping.abort();
  }

  /** The call has ended. */
  done(): void {
    this.signal?.removeEventListener("abort", this.act);
    this.drop();
  }

  private readonly act = (): void => {
    void this.cancel().then(
      () => sleep(PATIENCE_MS, this.dropped).then(() => this.drop()),
      () => this.drop(), // not known there (yet): leaving is what is left to say
    );
  };
}
