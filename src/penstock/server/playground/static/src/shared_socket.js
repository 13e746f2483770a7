import { CallError, ConnectionFailed } from "./errors.js";
import { endsCall, parseFrame } from "./frame.js";
const MAX_CALLS = 256;
export class SharedSocket {
    silenceS;
    wire;
    calls = new Map();
    left = new Set();
    cancels = new Map();
    gone = false;
    heard = true;
    watch;
    constructor(silenceS) {
        this.silenceS = silenceS;
    }
    get open() {
        return !this.gone;
    }
    takes(name) {
        return !this.gone && !this.calls.has(name) && !this.left.has(name) && this.calls.size < MAX_CALLS;
    }
    has(id) {
        if (this.calls.has(id))
            return id;
        for (const inbox of this.calls.values())
            if (inbox.requestId === id)
                return inbox.name;
        return undefined;
    }
    carry(wire) {
        this.wire = wire;
        if (this.gone)
            return;
        this.watch = setInterval(() => this.look(), (1000 * this.silenceS) / 2);
        this.watch.unref?.();
    }
    attach(inbox) {
        this.calls.set(inbox.name, inbox);
    }
    send(fields) {
        if (this.gone)
            throw new ConnectionFailed("the connection has ended", false);
        this.wire?.send(JSON.stringify(fields));
    }
    leave = (inbox) => {
        if (this.gone || this.calls.get(inbox.name) !== inbox)
            return;
        this.calls.delete(inbox.name);
        if (inbox.ended)
            return;
        this.left.add(inbox.name);
        this.send({ type: "detach", task_id: inbox.name });
    };
    cancel(name) {
        return new Promise((resolve, reject) => {
            this.cancels.set(name, [...(this.cancels.get(name) ?? []), { resolve, reject }]);
            this.send({ type: "cancel", task_id: name });
        });
    }
    close() {
        this.wire?.close();
    }
    message(text) {
        this.heard = true;
        let frame;
        try {
            frame = parseFrame(text);
        }
        catch (error) {
            this.closed(String(error));
            this.close();
            return;
        }
        this.route(frame, frame.task_id ?? "");
    }
    closed(reason) {
        if (this.gone)
            return;
        this.gone = true;
        clearInterval(this.watch);
        for (const inbox of this.calls.values())
            inbox.fail(reason);
        const error = new ConnectionFailed(`the connection broke before there was an answer (${reason})`, true);
        for (const waiting of [...this.cancels.values()].flat())
            waiting.reject(error);
        this.calls.clear();
        this.cancels.clear();
    }
    route(frame, name) {
        if (frame.type === "cancel")
            this.answerCancels(name, frame.status);
        else if (frame.type === "detach")
            this.left.delete(name);
        else if (frame.type === "resume")
            this.finish(name);
        else if (frame.type === "task")
            this.deliver(frame, name);
    }
    deliver(frame, name) {
        if (endsCall(frame))
            this.answerCancels(name, frame.status === "cancelled" ? "cancelled" : "already_finished");
        if (this.left.has(name))
            return;
        const inbox = this.find(name);
        inbox?.put(frame);
        if (inbox?.ended === true)
            this.calls.delete(inbox.name);
    }
    finish(name) {
        const inbox = this.find(name);
        inbox?.end();
        if (inbox !== undefined)
            this.calls.delete(inbox.name);
    }
    find(id) {
        return this.calls.get(this.has(id) ?? id);
    }
    answerCancels(name, outcome) {
        for (const waiting of this.cancels.get(name) ?? []) {
            if (outcome === "cancelled" || outcome === "already_finished")
                waiting.resolve(outcome);
            else
                waiting.reject(new CallError(`no task ${name} is known there`, "not_found"));
        }
        this.cancels.delete(name);
    }
    look() {
        if (!this.heard) {
            this.closed("the server fell silent: a ping was not answered");
            this.close();
            return;
        }
        this.heard = false;
        this.send({ type: "ping" });
    }
}
