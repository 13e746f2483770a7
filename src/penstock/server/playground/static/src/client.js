import { Abort } from "./abort.js";
import { Backoff, RETRY, safeToRepeat } from "./backoff.js";
import { CallCancelled, CallError, named } from "./errors.js";
import { HttpTransport } from "./http.js";
import { answerOf } from "./outcome.js";
import { startOf } from "./request.js";
import { Stream } from "./stream.js";
import { SocketTransport } from "./websocket.js";
export class Client {
    transport;
    retry;
    defaults;
    constructor(url, options = {}) {
        const { timeout, onDisconnect } = options;
        this.retry = { ...RETRY, ...options.retry };
        this.defaults = { ...(timeout !== undefined && { timeout }), ...(onDisconnect && { onDisconnect }) };
        this.transport = transportOf(new URL(url), options);
    }
    run(command, input = {}, options = {}) {
        return this.answer({ kind: "command", name: command, isStream: false }, input, options);
    }
    stream(command, input = {}, options = {}) {
        return this.read({ kind: "command", name: command, isStream: true }, input, options);
    }
    workflow(workflowId, input = {}, options = {}) {
        return this.read({ kind: "workflow", name: workflowId, isStream: true }, input, options);
    }
    runWorkflow(workflowId, input = {}, options = {}) {
        return this.answer({ kind: "workflow", name: workflowId, isStream: false }, input, options);
    }
    resume(id, after = -1, signal) {
        const again = { idempotent: true, ownName: false, resumable: true, correlationId: undefined };
        return this.streamOf({ ...again, open: undefined, taskId: id, after, signal });
    }
    cancel(id) {
        return this.repeated(() => this.transport.cancel(id), true);
    }
    task(id) {
        return this.repeated(() => this.transport.task(id), true);
    }
    tasks() {
        return this.repeated(() => this.transport.tasks(), true);
    }
    async commands() {
        return (await this.describe()).commands;
    }
    describe() {
        return this.repeated(() => this.transport.describe(), true);
    }
    health() {
        return this.transport.health();
    }
    close() {
        this.transport.close();
    }
    read(target, input, options) {
        const start = startOf(target, input, { ...this.defaults, ...options });
        return this.streamOf({
            open: (signal) => this.transport.open(start, signal),
            idempotent: start.idempotencyKey !== undefined,
            ownName: start.ownName,
            resumable: !start.moreInput,
            correlationId: start.correlationId,
            taskId: start.taskId,
            after: -1,
            signal: options.signal,
        });
    }
    streamOf(call) {
        const { transport, retry } = this;
        return new Stream({ ...call, transport, retry, cancel: (id) => this.cancel(id) });
    }
    async answer(target, input, options) {
        const start = startOf(target, input, { ...this.defaults, ...options });
        try {
            return answerOf(await this.frame(start, options));
        }
        catch (error) {
            throw named(error, start.correlationId);
        }
    }
    async frame(start, options) {
        const { taskId } = start;
        const unnamed = () => Promise.reject(new CallError("the call has no name", "not_found"));
        const abort = new Abort(options.signal, taskId === undefined ? unnamed : () => this.cancel(taskId));
        try {
            const run = () => this.transport.run(start, abort.dropped);
            return await this.repeated(run, start.idempotencyKey !== undefined, abort.dropped);
        }
        catch (error) {
            if (!abort.asked)
                throw error;
            throw new CallCancelled(`call ${taskId ?? ""} was cancelled (reason: caller)`, "caller", abort.reason);
        }
        finally {
            abort.done();
        }
    }
    async repeated(work, idempotent, signal) {
        const backoff = new Backoff(this.retry);
        for (;;) {
            try {
                return await work();
            }
            catch (error) {
                const again = safeToRepeat(error, idempotent) && (await backoff.pause(signal, error.retryAfterS));
                if (!again)
                    throw error;
            }
        }
    }
}
const SILENCE_S = 45;
function transportOf(url, options) {
    const { protocol } = url;
    if (!["http:", "https:", "ws:", "wss:"].includes(protocol)) {
        throw new TypeError(`${url} is no server's URL; write it like http://127.0.0.1:8000`);
    }
    const silenceS = options.silence ?? SILENCE_S;
    const base = new URL(url);
    base.protocol = protocol.replace("ws", "http");
    if (base.protocol !== protocol)
        base.pathname = "/";
    const http = new HttpTransport({
        url: base.href.replace(/\/+$/, ""),
        apiKey: options.apiKey,
        fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
        silenceS,
        form: options.form ?? "ndjson",
    });
    return base.protocol === protocol ? http : new SocketTransport({ url, apiKey: options.apiKey, silenceS }, http);
}
