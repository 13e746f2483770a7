import { CallError, PenstockError, RemoteProtocolError } from "./errors.js";
import { excerpt, parseFrame } from "./frame.js";
import { EventSplitter, LineSplitter } from "./lines.js";
import { codeOfStatus, errorOf } from "./outcome.js";
import { Dropped } from "./transport.js";
export const NDJSON = "application/x-ndjson";
export const SSE = "text/event-stream";
export class HttpReply {
    drop;
    reader;
    texts;
    watch;
    heard = true;
    constructor(body, kind, drop, silenceS) {
        this.drop = drop;
        this.reader = body.getReader();
        this.texts = kind === SSE ? new EventSplitter() : new LineSplitter();
        this.watch = setInterval(() => {
            if (!this.heard)
                this.close();
            this.heard = false;
        }, 1000 * silenceS);
    }
    async next() {
        for (;;) {
            const bytes = await this.read();
            if (bytes === undefined) {
                this.close();
                return undefined;
            }
            const frames = [];
            for (const text of this.texts.feed(bytes)) {
                const frame = parseFrame(text);
                if (frame.type === "task")
                    frames.push(frame);
            }
            if (frames.length > 0)
                return frames;
        }
    }
    tell() {
        throw noInput();
    }
    close() {
        clearInterval(this.watch);
        this.drop();
    }
    async read() {
        try {
            const { value } = await this.reader.read();
            this.heard = true;
            return value;
        }
        catch (error) {
            this.close();
            throw new Dropped(`the connection broke within the stream (${describe(error)})`, { cause: error });
        }
    }
}
export function noInput() {
    return new CallError("input streams do not travel over HTTP; give the client a ws URL", "not_implemented");
}
export function refusal(response, body) {
    const frame = frameIn(body);
    const answered = { status: response.status, retryAfterS: retryAfter(response) };
    if (frame?.status === "error")
        return errorOf(frame, answered);
    if (response.status < 400)
        return foreign(response, body);
    const what = `${response.url} answered HTTP ${response.status} with ${excerpt(body)}`;
    return new CallError(`${what}, which is no answer of penstock's`, codeOfStatus(response.status), {
        retryAfterS: answered.retryAfterS,
    });
}
export function foreign(response, body) {
    const kind = mediaType(response) || "no content type";
    const what = `${response.url} answered HTTP ${response.status} with ${kind}, ${excerpt(body)}`;
    return new RemoteProtocolError(`${what}: is it penstock that serves there?`);
}
export function frameIn(body) {
    try {
        return parseFrame(body);
    }
    catch {
        return undefined;
    }
}
export function mediaType(response) {
    return (response.headers.get("content-type") ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}
export function describe(error) {
    if (!(error instanceof Error))
        return String(error);
    return error.cause instanceof Error ? describe(error.cause) : error.message || error.name;
}
function retryAfter(response) {
    const text = response.headers.get("retry-after") ?? "";
    return /^\d+$/.test(text) ? Number(text) : undefined;
}
