import { ConnectionFailed, PenstockError } from "./errors.js";
import { HttpReply, NDJSON, SSE, describe, foreign, frameIn, mediaType, noInput, refusal } from "./http_reply.js";
const SHORT_S = 30;
const MARGIN_S = 10;
const JSON_TYPE = "application/json";
export class HttpTransport {
    settings;
    closing = new AbortController();
    constructor(settings) {
        this.settings = settings;
    }
    get accept() {
        return this.settings.form === "sse" ? SSE : NDJSON;
    }
    async run(start, signal) {
        const patience = start.timeout === undefined ? undefined : start.timeout + MARGIN_S;
        const [response, body] = await this.within(patience, signal, async (bounded) => {
            const answered = await this.execute(start, { accept: JSON_TYPE, signal: bounded });
            return [answered, await this.text(answered)];
        });
        const frame = frameIn(body);
        if (frame?.seq !== undefined)
            return frame;
        throw response.ok ? foreign(response, body) : refusal(response, body);
    }
    async open(start, signal) {
        if (start.moreInput)
            throw noInput();
        const { accept } = this;
        return this.streamed(signal, (bounded) => this.execute(start, { accept, signal: bounded }));
    }
    async resume(names, after, signal) {
        const path = `${pathOf(names.requestId ?? names.taskId ?? "")}/events?after=${after}`;
        return this.streamed(signal, (bounded) => this.send("GET", path, { accept: this.accept, signal: bounded }));
    }
    async cancel(id) {
        return (await this.ask("POST", `${pathOf(id)}/cancel`)).outcome;
    }
    task(id) {
        return this.ask("GET", pathOf(id));
    }
    async tasks() {
        return (await this.ask("GET", "/tasks")).tasks;
    }
    describe() {
        return this.ask("GET", "/v2/commands");
    }
    health() {
        return this.ask("GET", "/health", 503);
    }
    close() {
        this.closing.abort();
    }
    execute(start, asking) {
        return this.send("POST", start.kind === "command" ? "/v2/execute" : "/v2/workflow", { ...asking, start });
    }
    async ask(method, path, also = 200) {
        const [response, body] = await this.within(SHORT_S, undefined, async (signal) => {
            const answered = await this.send(method, path, { accept: JSON_TYPE, signal });
            return [answered, await this.text(answered)];
        });
        if (!response.ok && response.status !== also)
            throw refusal(response, body);
        try {
            return JSON.parse(body);
        }
        catch {
            throw foreign(response, body);
        }
    }
    async streamed(signal, ask) {
        const own = new AbortController();
        const drop = () => own.abort();
        const unlink = link(own, signal, this.closing.signal);
        try {
            const response = await ask(own.signal);
            if (response.status !== 200)
                throw refusal(response, await this.text(response));
            const kind = mediaType(response);
            if (![NDJSON, SSE].includes(kind) || response.body === null) {
                drop();
                throw foreign(response, "");
            }
            return new HttpReply(response.body, kind, () => (unlink(), drop()), this.settings.silenceS);
        }
        catch (error) {
            unlink();
            throw error;
        }
    }
    async within(seconds, signal, work) {
        const own = new AbortController();
        const unlink = link(own, signal, this.closing.signal);
        const late = () => own.abort(new Error(`no answer within ${seconds} s`));
        const timer = seconds === undefined ? undefined : setTimeout(late, 1000 * seconds);
        try {
            return await work(own.signal);
        }
        finally {
            clearTimeout(timer);
            unlink();
        }
    }
    async send(method, path, asking) {
        const { url, apiKey } = this.settings;
        const headers = { accept: asking.accept };
        if (apiKey !== undefined)
            headers["authorization"] = `Bearer ${apiKey}`;
        const init = { method, headers, signal: asking.signal, redirect: "manual", cache: "no-store" };
        if (asking.start !== undefined) {
            headers["content-type"] = JSON_TYPE;
            headers["x-request-id"] = asking.start.correlationId;
            if (asking.start.idempotencyKey !== undefined)
                headers["idempotency-key"] = asking.start.idempotencyKey;
            init.body = JSON.stringify(asking.start.body);
        }
        try {
            return await this.settings.fetch(url + path, init);
        }
        catch (error) {
            throw this.failed(error);
        }
    }
    async text(response) {
        try {
            return await response.text();
        }
        catch (error) {
            if (error instanceof PenstockError)
                throw error;
            throw new ConnectionFailed(`the connection broke within the answer (${describe(error)})`, true, error);
        }
    }
    failed(error) {
        const what = describe(error);
        if (!neverSent(error)) {
            return new ConnectionFailed(`${this.settings.url} went away before it answered (${what})`, true, error);
        }
        const advice = "start one with `penstock run PROJECT`, or check the address";
        return new ConnectionFailed(`no server answers at ${this.settings.url} (${what}): ${advice}`, false, error);
    }
}
function link(own, ...others) {
    const abort = () => own.abort();
    for (const other of others) {
        if (other?.aborted === true)
            abort();
        other?.addEventListener("abort", abort);
    }
    return () => others.forEach((other) => other?.removeEventListener("abort", abort));
}
const NEVER_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"]);
function neverSent(error) {
    if (!(error instanceof Error))
        return false;
    return NEVER_SENT.has(String(error.code)) || neverSent(error.cause);
}
function pathOf(id) {
    return `/tasks/${encodeURIComponent(id)}`;
}
