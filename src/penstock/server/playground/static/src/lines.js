import { CallError } from "./errors.js";
export const MAX_FRAME = 64 * 1024 * 1024;
export class LineSplitter {
    blank;
    decoder = new TextDecoder("utf-8");
    begun = [];
    size = 0;
    constructor(blank = false) {
        this.blank = blank;
    }
    feed(bytes) {
        const text = this.decoder.decode(bytes, { stream: true });
        const end = text.lastIndexOf("\n");
        if (end < 0) {
            this.keep(text);
            return [];
        }
        const whole = this.begun.join("") + text.slice(0, end);
        this.begun = [];
        this.size = 0;
        this.keep(text.slice(end + 1));
        const lines = whole.split("\n");
        return this.blank ? lines : lines.filter((line) => line !== "" && line !== "\r");
    }
    keep(piece) {
        this.begun.push(piece);
        this.size += piece.length;
        if (this.size > MAX_FRAME)
            throw new CallError(`a frame is longer than ${MAX_FRAME} characters`, "too_large");
    }
}
export class EventSplitter {
    lines = new LineSplitter(true);
    data = [];
    feed(bytes) {
        const events = [];
        for (const text of this.lines.feed(bytes)) {
            const line = text.endsWith("\r") ? text.slice(0, -1) : text;
            if (line.startsWith("data:"))
                this.data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
            if (line !== "" || this.data.length === 0)
                continue;
            events.push(this.data.join("\n"));
            this.data = [];
        }
        return events;
    }
}
