import { CallCancelled, CallError, PenstockError, RemoteProtocolError, ReplayTruncated } from "./errors.js";
import { endsCall } from "./frame.js";
const OF_STATUS = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    410: "gone",
    413: "too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    429: "resource_exhausted",
    431: "headers_too_large",
    499: "cancelled",
    501: "not_implemented",
    502: "upstream_failed",
    503: "unavailable",
    504: "deadline_exceeded",
};
export function codeOfStatus(status) {
    return OF_STATUS[status] ?? (status < 500 ? "invalid_argument" : "internal");
}
export function errorOf(frame, response) {
    const message = frame.error ?? `${subject(frame)} failed; the server gave no reason`;
    if (frame.code === "gone" && frame.first_seq !== undefined) {
        return new ReplayTruncated(message, frame.first_seq);
    }
    return new CallError(message, frame.code ?? (response ? codeOfStatus(response.status) : "internal"), {
        retryable: frame.retryable,
        retryAfterS: frame.retry_after_s ?? response?.retryAfterS,
        details: frame.details,
    });
}
export function failureOf(frame) {
    if (frame.status === "error")
        return errorOf(frame);
    if (frame.status !== "cancelled")
        return undefined;
    const reason = frame.reason ?? "unknown";
    const hint = reason === "disconnect" ? "; with onDisconnect it would have gone on" : "";
    return new CallCancelled(`${subject(frame)} was cancelled (reason: ${reason})${hint}`, reason);
}
export function answerOf(frame) {
    if (frame.seq === undefined && frame.status === "error")
        throw errorOf(frame);
    if (!endsCall(frame)) {
        throw new RemoteProtocolError(`the answer is a frame of status ${frame.status}, which ends no call`);
    }
    const failure = failureOf(frame);
    if (failure !== undefined)
        throw failure;
    return frame.data ?? null;
}
function subject(frame) {
    return frame.task_id === undefined ? "the call" : `call ${frame.task_id}`;
}
