const RETRYABLE = {
    request_timeout: true,
    resource_exhausted: true,
    upstream_failed: true,
    kv_transfer_failed: true,
    comm_timeout: true,
    distributed_runtime_error: true,
    unavailable: true,
    deadline_exceeded: true,
};
export class PenstockError extends Error {
    correlationId;
    constructor(message, options) {
        super(message, options);
        this.name = new.target.name;
    }
}
export function named(error, correlationId) {
    if (error instanceof PenstockError)
        error.correlationId ??= correlationId;
    return error;
}
export class CallError extends PenstockError {
    code;
    retryable;
    retryAfterS;
    details;
    constructor(message, code, parts = {}) {
        super(message, { cause: parts.cause });
        this.code = code;
        this.retryable = parts.retryable ?? RETRYABLE[code] ?? false;
        this.retryAfterS = parts.retryAfterS;
        this.details = parts.details ?? [];
    }
}
export class ConnectionFailed extends CallError {
    sent;
    constructor(message, sent, cause) {
        super(message, "unavailable", { cause });
        this.sent = sent;
    }
}
export class ReplayTruncated extends CallError {
    firstSeq;
    constructor(message, firstSeq) {
        super(message, "gone");
        this.firstSeq = firstSeq;
    }
}
export class CallCancelled extends PenstockError {
    reason;
    constructor(message, reason, cause) {
        super(message, { cause });
        this.reason = reason;
    }
}
export class StreamTruncated extends PenstockError {
}
export class RemoteProtocolError extends PenstockError {
}
