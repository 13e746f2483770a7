import { CallError, ConnectionFailed } from "./errors.js";
export const RETRY = { attempts: 6, baseS: 0.1, capS: 5 };
export class Backoff {
    retry;
    failed = 0;
    constructor(retry) {
        this.retry = retry;
    }
    reset() {
        this.failed = 0;
    }
    async pause(signal, atLeastS = 0) {
        const spent = this.failed >= this.retry.attempts || atLeastS > this.retry.capS;
        if (spent || isAborted(signal))
            return false;
        const bound = Math.min(this.retry.capS, this.retry.baseS * 2 ** this.failed);
        this.failed += 1;
        await sleep(1000 * Math.max(bound * (0.5 + Math.random() / 2), atLeastS), signal);
        return !isAborted(signal);
    }
}
function isAborted(signal) {
    return signal?.aborted === true;
}
export function safeToRepeat(error, idempotent) {
    if (error instanceof ConnectionFailed)
        return idempotent || !error.sent;
    if (!(error instanceof CallError) || !error.retryable)
        return false;
    return idempotent || error.code === "resource_exhausted" || error.code === "unavailable";
}
export function sleep(ms, signal) {
    return new Promise((resolve) => {
        const done = () => {
            clearTimeout(timer);
            signal?.removeEventListener("abort", done);
            resolve();
        };
        const timer = setTimeout(done, ms);
        signal?.addEventListener("abort", done);
        if (isAborted(signal))
            done();
    });
}
