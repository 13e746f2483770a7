/** Every error the client raises, in one tree; the codes are those of docs/protocol.md, section 6. */

/** The codes a server knows, and whether the same call may go well later. */
const RETRYABLE: Readonly<Record<string, boolean>> = {
  request_timeout: true,
  resource_exhausted: true,
  upstream_failed: true,
  kv_transfer_failed: true,
  comm_timeout: true,
  distributed_runtime_error: true,
  unavailable: true,
  deadline_exceeded: true,
};

/** One part of a failure, such as `{path: ["input", "prompt"], reason: "missing"}`. */
export type Detail = Readonly<Record<string, unknown>>;

/** Base of every error the client raises. */
export class PenstockError extends Error {
  /** `X-Request-Id` of the request that was made in vain; a server logs it, too. */
  correlationId: string | undefined;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Return an error that tells of which request it is. */
export function named<E>(error: E, correlationId: string | undefined): E {
  if (error instanceof PenstockError) error.correlationId ??= correlationId;
  return error;
}

/** What a `CallError` knows beside its message. */
export interface CallErrorParts {
  readonly retryable?: boolean | undefined;
  readonly retryAfterS?: number | undefined;
  readonly details?: readonly Detail[] | undefined;
  readonly cause?: unknown;
}

/** A call was refused, or failed. */
export class CallError extends PenstockError {
  /** Machine-readable reason. */
  readonly code: string;
  /** Whether the same call may go well later. */
  readonly retryable: boolean;
  /** In how many seconds, where the server knows. */
  readonly retryAfterS: number | undefined;
  /** A part for each fault. */
  readonly details: readonly Detail[];

  constructor(message: string, code: string, parts: CallErrorParts = {}) {
    super(message, { cause: parts.cause });
    this.code = code;
    this.retryable = parts.retryable ?? RETRYABLE[code] ?? false;
    this.retryAfterS = parts.retryAfterS;
    this.details = parts.details ?? [];
  }
}

/** No server answered, or it went away before it answered. */
export class ConnectionFailed extends CallError {
  /** Whether the request may have reached the server; where it has not, sending it again is safe. */
  readonly sent: boolean;

  constructor(message: string, sent: boolean, cause?: unknown) {
    super(message, "unavailable", { cause });
    this.sent = sent;
  }
}

/** The frames asked for are no longer kept; reading can go on behind `firstSeq - 1`. */
export class ReplayTruncated extends CallError {
  readonly firstSeq: number;

  constructor(message: string, firstSeq: number) {
    super(message, "gone");
    this.firstSeq = firstSeq;
  }
}

/** The call was cancelled before it finished; `reason` is `caller` or `disconnect`. */
export class CallCancelled extends PenstockError {
  readonly reason: string;

  constructor(message: string, reason: string, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

/** A stream ended without its terminal frame, and could not be read on: what came may be incomplete. */
export class StreamTruncated extends PenstockError {}

/** The peer broke the rules of a call's life, or is no penstock. */
export class RemoteProtocolError extends PenstockError {}
