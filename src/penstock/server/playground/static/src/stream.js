import { Abort } from "./abort.js";
import { Backoff, safeToRepeat, sleep } from "./backoff.js";
import { CallCancelled, CallError, ConnectionFailed, PenstockError } from "./errors.js";
import { ReplayTruncated, StreamTruncated, named } from "./errors.js";
import { failureOf } from "./outcome.js";
import { Progress, WITH_ITEM } from "./progress.js";
import { checked } from "./request.js";
import { Dropped } from "./transport.js";
const END_MS = 500;
export class Stream {
    source;
    progress;
    backoff;
    abort;
    reply;
    opened;
    batch = [];
    at = 0;
    doubt;
    constructor(source) {
        this.source = source;
        this.progress = new Progress(source.taskId, source.after);
        this.backoff = new Backoff(source.retry);
        this.abort = new Abort(source.signal, () => this.cancel());
        this.opened = source.open === undefined;
    }
    get taskId() {
        return this.progress.taskId;
    }
    get requestId() {
        return this.progress.requestId;
    }
    get correlationId() {
        return this.source.correlationId;
    }
    get lastSeq() {
        return this.progress.lastSeq;
    }
    get status() {
        return this.progress.status;
    }
    get text() {
        return this.progress.text;
    }
    get metrics() {
        return this.progress.metrics;
    }
    async cancel() {
        const id = this.requestId ?? this.taskId;
        if (id === undefined)
            throw new CallError("the call has no name yet; read its first frame", "not_found");
        return this.source.cancel(id);
    }
    send(item) {
        this.tell("input", checked(item));
    }
    endInput() {
        this.tell("input_end");
    }
    async open() {
        if (this.progress.status === "opening" && this.batch.length === 0)
            this.batch = await this.read();
    }
    close() {
        this.abort.done();
        this.reply?.close();
        this.reply = undefined;
    }
    [Symbol.asyncIterator]() {
        return {
            next: () => {
                try {
                    const frame = this.buffered();
                    if (frame !== undefined)
                        return Promise.resolve({ done: false, value: frame.data });
                }
                catch (error) {
                    return Promise.reject(error);
                }
                return this.fetched();
            },
            return: async () => (this.close(), { done: true, value: undefined }),
        };
    }
    async *frames() {
        try {
            for (let frame = await this.frame(); frame !== undefined; frame = await this.frame())
                yield frame;
        }
        finally {
            this.close();
        }
    }
    tell(kind, data) {
        if (this.reply === undefined)
            throw new CallError("the stream is not open: open() it", "failed_precondition");
        this.reply.tell(kind, data);
    }
    buffered() {
        while (this.at < this.batch.length) {
            const frame = this.seen();
            if (frame.data !== undefined && WITH_ITEM.has(frame.status))
                return frame;
        }
        return undefined;
    }
    async fetched() {
        while (this.progress.terminal === undefined) {
            this.batch = await this.read();
            this.at = 0;
            const frame = this.buffered();
            if (frame !== undefined)
                return { done: false, value: frame.data };
        }
        this.finish();
        this.raiseFailure();
        return { done: true, value: undefined };
    }
    async frame() {
        if (this.at === this.batch.length) {
            if (this.progress.terminal !== undefined)
                return this.finish();
            this.batch = await this.read();
            this.at = 0;
        }
        return this.seen();
    }
    seen() {
        const frame = this.batch[this.at];
        this.at += 1;
        try {
            this.progress.see(frame);
        }
        catch (error) {
            this.close();
            throw named(error, this.correlationId);
        }
        return frame;
    }
    async read() {
        for (;;) {
            try {
                this.reply ??= await this.connect();
                const frames = await this.reply.next();
                if (frames === undefined)
                    throw new Dropped("the stream ended without its terminal frame");
                const first = frames[0];
                if (first?.seq === undefined && first?.status === "error")
                    this.progress.see(first);
                this.backoff.reset();
                return frames;
            }
            catch (error) {
                this.reply?.close();
                this.reply = undefined;
                await this.recover(error).catch((told) => {
                    throw named(told, this.correlationId);
                });
            }
        }
    }
    async connect() {
        const { transport, open } = this.source;
        const named = this.requestId ?? this.taskId;
        if (this.opened && (named !== undefined || open === undefined)) {
            const names = { taskId: this.taskId, requestId: this.requestId };
            return transport.resume(names, this.lastSeq, this.abort.dropped);
        }
        const reply = await open(this.abort.dropped);
        this.opened = true;
        return reply;
    }
    async recover(error) {
        if (this.abort.dropped.aborted)
            throw this.left(error);
        const again = this.mayTry(error);
        const atLeastS = error instanceof CallError ? error.retryAfterS : undefined;
        if (again && (await this.backoff.pause(this.abort.dropped, atLeastS)))
            return;
        const wanted = this.abort.asked;
        const known = this.opened && this.source.open !== undefined;
        this.close();
        if (wanted)
            throw this.left(error);
        if (this.doubt !== undefined && this.requestId === undefined)
            throw this.doubt;
        throw known || error instanceof Dropped ? this.truncated(error) : error;
    }
    mayTry(error) {
        const { idempotent, ownName, resumable } = this.source;
        if (this.opened)
            return resumable && worthResuming(error);
        if (safeToRepeat(error, idempotent))
            return true;
        if (!(error instanceof ConnectionFailed) || !ownName || !resumable)
            return false;
        this.doubt = error;
        this.opened = true;
        return true;
    }
    left(error) {
        if (!this.abort.asked)
            return this.truncated(error);
        this.abort.done();
        return new CallCancelled(`call ${this.taskId ?? ""} was cancelled (reason: caller)`, "caller", this.abort.reason);
    }
    truncated(error) {
        const ours = error instanceof PenstockError && !(error instanceof CallError);
        if (ours || error instanceof ReplayTruncated)
            return error;
        const why = error instanceof Error ? error.message : String(error);
        const what = `the stream of ${this.taskId ?? "a call"} ended after frame ${this.lastSeq}`;
        return new StreamTruncated(`${what}, without its terminal frame, and cannot be read on: ${why}`, { cause: error });
    }
    raiseFailure() {
        const failure = this.progress.terminal && failureOf(this.progress.terminal);
        if (failure !== undefined)
            throw named(failure, this.correlationId);
    }
    finish() {
        const reply = this.reply;
        this.reply = undefined;
        const end = () => (reply?.close(), this.abort.done());
        if (reply === undefined)
            end();
        else
            void Promise.race([reply.next().catch(() => undefined), sleep(END_MS, this.abort.dropped)]).then(end);
        return undefined;
    }
}
function worthResuming(error) {
    if (error instanceof Dropped || error instanceof ConnectionFailed)
        return true;
    return error instanceof CallError && error.retryable;
}
