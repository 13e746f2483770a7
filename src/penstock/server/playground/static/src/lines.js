import { CallError } from "./errors.js";
export const MAX_FRAME = 64 * 1024 * 1024;
export class LineSplitter {
    decoder = new TextDecoder("utf-8");
    begun = [];
    size = 0;
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
        return whole.split("\n").filter((line) => line !== "" && line !== "\r");
    }
    keep(piece) {
        this.begun.push(piece);
        this.size += piece.length;
        if (this.size > MAX_FRAME)
            throw new CallError(`a frame is longer than ${MAX_FRAME} characters`, "too_large");
    }
}
