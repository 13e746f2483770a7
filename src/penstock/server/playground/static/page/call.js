import { CallCancelled, CallError, PenstockError } from "../src/index.js";
import { Breath } from "./frames.js";
import { Meter } from "./meter.js";
export class PageCall {
    correlationId;
    meter;
    stream;
    aborting = new AbortController();
    constructor(open, correlationId) {
        this.correlationId = correlationId;
        this.meter = new Meter(performance.now());
        this.stream = open(this.aborting.signal, correlationId);
    }
    cancel() {
        this.aborting.abort();
    }
    async read(see) {
        const breath = new Breath();
        let last;
        try {
            for await (const frame of this.stream.frames()) {
                if (frame.status === "streaming")
                    this.meter.see(performance.now());
                see(frame);
                last = frame;
                if (breath.due)
                    await breath.take();
            }
        }
        catch (error) {
            if (!(error instanceof PenstockError))
                throw error;
            return endingOfError(error);
        }
        finally {
            breath.close();
        }
        return endingOf(last);
    }
}
function endingOf(frame) {
    const told = { metrics: frame?.metrics ?? {}, details: frame?.details ?? [] };
    if (frame?.status === "completed")
        return { status: "completed", ...told };
    if (frame?.status === "cancelled")
        return { status: "cancelled", error: frame.reason ?? "", ...told };
    return {
        status: "error",
        error: frame?.error ?? "the call ended without a word",
        code: frame?.code ?? "internal",
        retryable: frame?.retryable === true,
        ...told,
    };
}
export function endingOfError(error) {
    const metrics = {};
    if (error instanceof CallCancelled)
        return { status: "cancelled", error: error.reason, metrics, details: [] };
    if (error instanceof CallError) {
        const { message, code, retryable, details } = error;
        return { status: "error", error: message, code, retryable, details, metrics };
    }
    return { status: "error", error: error.message, code: error.name, metrics, details: [] };
}
