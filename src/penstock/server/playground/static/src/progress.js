import { RemoteProtocolError } from "./errors.js";
import { endsCall } from "./frame.js";
import { errorOf } from "./outcome.js";
export class Progress {
    taskId;
    requestId;
    status = "opening";
    lastSeq;
    terminal;
    heard = [];
    constructor(taskId, after) {
        this.taskId = taskId;
        this.lastSeq = after;
    }
    get text() {
        this.heard = [this.heard.join("")];
        return this.heard[0] ?? "";
    }
    get metrics() {
        return this.terminal?.metrics ?? {};
    }
    see(frame) {
        if (frame.status === "streaming" && frame.seq === this.lastSeq + 1 && this.status === "streaming") {
            this.lastSeq = frame.seq;
            if (frame.data !== undefined)
                this.hear(frame.data);
            return;
        }
        if (frame.seq === undefined && frame.status === "error")
            throw errorOf(frame);
        if (frame.seq !== this.lastSeq + 1 || this.terminal !== undefined) {
            throw new RemoteProtocolError(`frame ${frame.seq} of ${this.taskId} came behind frame ${this.lastSeq}`);
        }
        this.lastSeq = frame.seq;
        if (frame.status === "accepted") {
            this.taskId = frame.task_id ?? this.taskId;
            this.requestId = frame.request_id;
        }
        if (endsCall(frame))
            this.terminal = frame;
        if (!NOTES.has(frame.status))
            this.status = frame.status;
        if (frame.data !== undefined && WITH_ITEM.has(frame.status))
            this.hear(frame.data);
    }
    hear(item) {
        if (typeof item === "string") {
            this.heard.push(item);
        }
        else if (typeof item === "object" && item !== null) {
            const { chunk, text } = item;
            if (typeof chunk === "string")
                this.heard.push(chunk);
            else if (typeof text === "string")
                this.heard = [text];
        }
    }
}
export const WITH_ITEM = new Set(["streaming", "completed"]);
const NOTES = new Set(["queued", "progress"]);
