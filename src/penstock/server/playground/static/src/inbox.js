import { ConnectionFailed } from "./errors.js";
import { endsCall } from "./frame.js";
import { Dropped } from "./transport.js";
export class Inbox {
    name;
    socket;
    ended = false;
    requestId;
    frames = [];
    fault;
    wake;
    constructor(name, alias, socket) {
        this.name = name;
        this.socket = socket;
        this.requestId = alias;
    }
    put(frame) {
        this.frames.push(frame);
        this.requestId = frame.request_id ?? this.requestId;
        if (endsCall(frame) || frame.seq === undefined)
            this.ended = true;
        this.wake?.();
    }
    fail(reason) {
        if (!this.ended)
            this.fault = reason;
        this.end();
    }
    end() {
        this.ended = true;
        this.wake?.();
    }
    close() {
        this.socket.leave(this);
        this.end();
    }
    tell(kind, data) {
        this.socket.send({ type: kind, task_id: this.requestId ?? this.name, ...(kind === "input" && { data }) });
    }
    async first() {
        await this.arrival();
        const frame = this.frames[0];
        if (frame !== undefined)
            return frame;
        const why = this.fault ?? "left";
        throw new ConnectionFailed(`the connection broke before there was an answer (${why})`, true);
    }
    async next() {
        await this.arrival();
        if (this.frames.length === 0) {
            if (this.fault !== undefined)
                throw new Dropped(`the connection broke within the stream (${this.fault})`);
            return undefined;
        }
        const frames = this.frames;
        this.frames = [];
        return frames;
    }
    async arrival() {
        while (this.frames.length === 0 && !this.ended) {
            await new Promise((resolve) => {
                this.wake = resolve;
            });
        }
        this.wake = undefined;
    }
}
