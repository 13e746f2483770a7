/** What runs a call from a form: two buttons, what came of it, and how fast that was. */

import type { Frame } from "../src/index.js";
import type { Ending, Opener } from "./call.js";
import { PageCall } from "./call.js";
import { announce, h, show } from "./dom.js";
import { Painter } from "./frames.js";
import { Plots, round } from "./plots.js";

/** A view's part in a call. */
export interface Part {
  /** What is called, for words about it. */
  readonly name: string;
  /** Return what opens the call; undefined where the form has faults. */
  prepare(): Promise<Opener | undefined>;
  /** A call begins. */
  begin(): void;
  /** A frame came. */
  see(frame: Frame): void;
  /** The call ended so. */
  end(ending: Ending): void;
  /** Return what those who hear the page are told of the answer. */
  spoken?(): string;
}

const MOST = 4; // calls at a time: a browser has six connections to a server, and one has to be left for a cancel

let running = 0;

const OUTCOMES = { completed: "Completed", cancelled: "Cancelled", error: "Failed" } as const;

/** Runs one call at a time. */
export class RunPanel {
  readonly buttons: HTMLElement;
  readonly results: HTMLElement;
  private readonly run: HTMLButtonElement;
  private readonly cancelling: HTMLButtonElement;
  private readonly state = h("p", { class: "state" });
  private readonly failure = h("div", { class: "failure", role: "alert" });
  private readonly plots = new Plots();
  private readonly facts = h("dl", { class: "facts" });
  private readonly painter = new Painter(() => this.paint());
  private call: PageCall | undefined;
  private note = "";

  /**
   * @param part The view's part.
   * @param output Where the view shows what came.
   * @param word What the button says.
   */
  constructor(
    private readonly part: Part,
    output: HTMLElement,
    word = "Run",
  ) {
    this.run = h("button", { class: "main", type: "submit" }, word);
    this.cancelling = h("button", { type: "button", disabled: true, click: () => this.cancel() }, "Cancel");
    this.buttons = h("div", { class: "buttons" }, this.run, this.cancelling, this.state);
    this.results = h("div", { class: "results" }, this.failure, output, this.plots.element, this.facts);
    show(this.failure, false);
    show(this.plots.element, false);
  }

  /** Whether a call runs. */
  get running(): boolean {
    return this.call !== undefined;
  }

  /** Run one, unless one runs. */
  async start(): Promise<void> {
    if (this.running || this.run.disabled) return;
    if (running >= MOST) {
      this.say(`${running} calls run in this page already; cancel one, or wait for it`);
      return;
    }
    this.run.disabled = true; // a form may have files to read first
    const opener = await this.part.prepare().finally(() => (this.run.disabled = false));
    if (opener === undefined) {
      this.say("Not sent: see the form");
      return;
    }
    const call = new PageCall(opener, `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`);
    this.begin(call);
    running += 1;
    const ending = await call.read((frame) => this.see(frame)).finally(() => (running -= 1));
    this.end(call, ending);
  }

  /** Cancel the call that runs. */
  cancel(): void {
    if (this.call === undefined) return;
    this.note = "cancelling";
    this.call.cancel();
    this.painter.touch();
  }

  private say(words: string): void {
    this.state.textContent = words;
    announce(words);
  }

  private begin(call: PageCall): void {
    this.call = call;
    this.note = "opening";
    const onCancel = document.activeElement === this.run;
    this.run.disabled = true;
    this.cancelling.disabled = false;
    if (onCancel) this.cancelling.focus(); // a button that is disabled loses it to the page
    show(this.failure, false);
    show(this.plots.element, true);
    this.facts.replaceChildren();
    this.part.begin();
    announce(`${this.part.name} runs`);
    this.paint();
  }

  private see(frame: Frame): void {
    if (frame.status === "queued") this.note = `waiting, place ${frame.position ?? "?"} in the queue`;
    else if (frame.status === "progress") this.note = progressOf(frame.data);
    else if (this.note !== "cancelling") this.note = frame.status === "accepted" ? "accepted" : "";
    this.part.see(frame);
    this.painter.touch();
  }

  private end(call: PageCall, ending: Ending): void {
    this.call = undefined;
    this.run.disabled = false;
    if (document.activeElement === this.cancelling) this.run.focus();
    this.cancelling.disabled = true;
    const items = call.meter.items;
    const took = Number(ending.metrics["total_ms"]);
    const time = Number.isFinite(took) ? ` in ${round(took)} ms` : "";
    const why = ending.status === "cancelled" && ending.error !== "caller" ? ` (${ending.error ?? ""})` : "";
    const words = `${OUTCOMES[ending.status]}${why}${items > 0 ? `, ${items} items` : ""}${time}`;
    this.plots.draw(call.meter);
    this.part.end(ending);
    this.state.textContent = words;
    if (ending.status === "error") this.tell(call, ending);
    this.facts.replaceChildren(...factsOf(call, ending));
    const more = ending.status === "error" ? ending.error : this.part.spoken?.();
    announce([`${this.part.name}: ${words}`, more].filter(Boolean).join(". "));
  }

  private tell(call: PageCall, { error = "", code = "", retryable = false }: Ending): void {
    const again = retryable ? " · the same call may go well later" : "";
    const id = call.stream.requestId ?? call.correlationId;
    this.failure.replaceChildren(
      h("p", { class: "message" }, error),
      h("p", {}, "Code ", h("code", { class: "code" }, code), " · id ", h("code", { class: "id" }, id), again),
    );
    show(this.failure, true);
  }

  private paint(): void {
    if (this.call === undefined) return;
    const { items } = this.call.meter;
    this.state.textContent = [`Running`, items > 0 ? `${items} items` : "", this.note].filter(Boolean).join(" · ");
    this.plots.draw(this.call.meter);
  }
}

function progressOf(data: unknown): string {
  const { fraction, message } = (data ?? {}) as { fraction?: unknown; message?: unknown };
  const share = typeof fraction === "number" ? `${Math.round(100 * fraction)} %` : "";
  return [share, typeof message === "string" ? message : ""].filter(Boolean).join(" ");
}

function factsOf({ stream, correlationId }: PageCall, { metrics }: Ending): Node[] {
  const ids = [
    ["Task id", stream.taskId],
    ["Request id", stream.requestId],
    ["X-Request-Id", correlationId],
  ] as const;
  const numbers = Object.entries(metrics).filter(([, value]) => typeof value === "number");
  const rows = [
    ...ids.filter(([, value]) => value !== undefined).map(([name, value]) => [name, h("code", {}, value ?? "")] as const),
    ...numbers.map(([name, value]) => [name, String(Math.round(Number(value) * 1000) / 1000)] as const),
  ];
  return rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
}
