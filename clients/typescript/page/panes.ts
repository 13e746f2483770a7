/** What a call gives, on the page: text that grows, and items as they came. */

import { h } from "./dom.js";
import { Painter } from "./frames.js";

const LINE = 4000; // characters after which the next line begins a part of its own, which is laid out alone
const KEPT = 100; // items shown
const LONGEST = 400; // characters shown of one

/** Return the text in an item, and whether it is all so far instead of what is new. */
export function textIn(item: unknown): { readonly text: string; readonly all: boolean } | undefined {
  if (typeof item === "string") return { text: item, all: false };
  if (typeof item !== "object" || item === null) return undefined;
  const { chunk, text } = item as { chunk?: unknown; text?: unknown };
  if (typeof chunk === "string") return { text: chunk, all: false };
  return typeof text === "string" ? { text, all: true } : undefined;
}

/** Text that grows; it is painted once a frame, however many pieces come. */
export class TextPane {
  readonly element: HTMLElement;
  private readonly painter = new Painter(() => this.paint());
  private readonly parts: HTMLElement;
  private part: Text | undefined;
  private length = 0;
  private waiting = "";
  private whole = "";
  private anew = false;

  /** @param held Stays in view while the text grows, if it was. */
  constructor(
    label: string,
    private readonly held?: HTMLElement,
  ) {
    this.parts = h("div", { class: "text" });
    this.element = h("div", { class: "pane", role: "region", "aria-label": label, tabindex: 0 }, this.parts);
  }

  /** Show an item's text. */
  add({ text, all }: { readonly text: string; readonly all: boolean }): void {
    const more = all && text.startsWith(this.whole);
    if (all && !more) this.clear();
    this.waiting += more ? text.slice(this.whole.length) : text;
    if (all) this.whole = text;
    this.painter.touch();
  }

  /** Show nothing. */
  clear(): void {
    this.waiting = "";
    this.whole = "";
    this.anew = true;
    this.painter.touch();
  }

  /** Show now what has come. */
  flush(): void {
    this.painter.flush();
  }

  private paint(): void {
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
    if (atEnd) element.scrollTop = element.scrollHeight;
    if (holds) this.held?.scrollIntoView({ block: "nearest" });
  }

  private append(text: string): void {
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
      if (end >= 0) this.part = undefined;
    }
  }
}

function inView(element: HTMLElement): boolean {
  const { top, bottom } = element.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

/** The last items, as JSON; nothing is done for them while they are folded. */
export class ItemsPane {
  readonly element: HTMLDetailsElement;
  private readonly painter = new Painter(() => this.paint());
  private readonly lines = h("pre", { tabindex: 0, role: "region", "aria-label": "Items" });
  private readonly title = h("summary", {}, "Items");
  private items: Shown[] = [];
  private count = 0;

  constructor() {
    this.element = h("details", { class: "items", toggle: () => this.painter.touch() }, this.title, this.lines);
  }

  /** Show an item. */
  add(item: unknown): void {
    this.count += 1;
    this.items.push({ item });
    if (this.items.length > 2 * KEPT) this.items = this.items.slice(-KEPT);
    this.painter.touch();
  }

  /** Show none. */
  clear(): void {
    this.items = [];
    this.count = 0;
    this.painter.touch();
  }

  /** Show now what has come. */
  flush(): void {
    this.painter.flush();
  }

  private paint(): void {
    const some = this.count > KEPT ? `the last ${KEPT} of ${this.count}` : String(this.count);
    this.title.textContent = `Items (${some})`;
    if (this.element.open) this.lines.textContent = this.items.slice(-KEPT).map(lineOf).join("\n");
  }
}

/** An item, and its line once that was needed. */
interface Shown {
  readonly item: unknown;
  line?: string;
}

function lineOf(shown: Shown): string {
  if (shown.line === undefined) {
    const line = JSON.stringify(shown.item);
    shown.line = line.length > LONGEST ? `${line.slice(0, LONGEST)}… (${line.length} characters)` : line;
  }
  return shown.line;
}
