import { h } from "./dom.js";
import { Painter } from "./frames.js";
const LINE = 4000;
const KEPT = 100;
const LONGEST = 400;
export function textIn(item) {
    if (typeof item === "string")
        return { text: item, all: false };
    if (typeof item !== "object" || item === null)
        return undefined;
    const { chunk, text } = item;
    if (typeof chunk === "string")
        return { text: chunk, all: false };
    return typeof text === "string" ? { text, all: true } : undefined;
}
export class TextPane {
    held;
    element;
    painter = new Painter(() => this.paint());
    parts;
    part;
    length = 0;
    waiting = "";
    whole = "";
    anew = false;
    constructor(label, held) {
        this.held = held;
        this.parts = h("div", { class: "text" });
        this.element = h("div", { class: "pane", role: "region", "aria-label": label, tabindex: 0 }, this.parts);
    }
    add({ text, all }) {
        const more = all && text.startsWith(this.whole);
        if (all && !more)
            this.clear();
        this.waiting += more ? text.slice(this.whole.length) : text;
        if (all)
            this.whole = text;
        this.painter.touch();
    }
    clear() {
        this.waiting = "";
        this.whole = "";
        this.anew = true;
        this.painter.touch();
    }
    flush() {
        this.painter.flush();
    }
    paint() {
        const { element } = this;
        const holds = this.held !== undefined && inView(this.held);
        const atEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 8;
        if (this.anew) {
            this.parts.replaceChildren();
            this.part = undefined;
            this.anew = false;
        }
        this.append(this.waiting);
        this.waiting = "";
        if (atEnd)
            element.scrollTop = element.scrollHeight;
        if (holds)
            this.held?.scrollIntoView({ block: "nearest" });
    }
    append(text) {
        let left = text;
        while (left !== "") {
            if (this.part === undefined) {
                this.part = document.createTextNode("");
                this.length = 0;
                this.parts.append(h("div", {}, this.part));
            }
            const end = this.length > LINE ? left.indexOf("\n") : left.indexOf("\n", LINE);
            const piece = end < 0 ? left : left.slice(0, end);
            this.part.appendData(piece);
            this.length += piece.length;
            left = end < 0 ? "" : left.slice(end + 1);
            if (end >= 0)
                this.part = undefined;
        }
    }
}
function inView(element) {
    const { top, bottom } = element.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
}
export class ItemsPane {
    element;
    painter = new Painter(() => this.paint());
    lines = h("pre", { tabindex: 0, role: "region", "aria-label": "Items" });
    title = h("summary", {}, "Items");
    items = [];
    count = 0;
    constructor() {
        this.element = h("details", { class: "items", toggle: () => this.painter.touch() }, this.title, this.lines);
    }
    add(item) {
        this.count += 1;
        this.items.push({ item });
        if (this.items.length > 2 * KEPT)
            this.items = this.items.slice(-KEPT);
        this.painter.touch();
    }
    clear() {
        this.items = [];
        this.count = 0;
        this.painter.touch();
    }
    flush() {
        this.painter.flush();
    }
    paint() {
        const some = this.count > KEPT ? `the last ${KEPT} of ${this.count}` : String(this.count);
        this.title.textContent = `Items (${some})`;
        if (this.element.open)
            this.lines.textContent = this.items.slice(-KEPT).map(lineOf).join("\n");
    }
}
function lineOf(shown) {
    if (shown.line === undefined) {
        const line = JSON.stringify(shown.item);
        shown.line = line.length > LONGEST ? `${line.slice(0, LONGEST)}… (${line.length} characters)` : line;
    }
    return shown.line;
}
