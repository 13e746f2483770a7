import { PageCall } from "./call.js";
import { announce, h, show } from "./dom.js";
import { Painter } from "./frames.js";
import { Plots, round } from "./plots.js";
const MOST = 4;
let running = 0;
const OUTCOMES = { completed: "Completed", cancelled: "Cancelled", error: "Failed" };
export class RunPanel {
    part;
    buttons;
    results;
    run;
    cancelling;
    state = h("p", { class: "state" });
    failure = h("div", { class: "failure", role: "alert" });
    plots = new Plots();
    facts = h("dl", { class: "facts" });
    painter = new Painter(() => this.paint());
    call;
    note = "";
    constructor(part, output, word = "Run") {
        this.part = part;
        this.run = h("button", { class: "main", type: "submit" }, word);
        this.cancelling = h("button", { type: "button", disabled: true, click: () => this.cancel() }, "Cancel");
        this.buttons = h("div", { class: "buttons" }, this.run, this.cancelling, this.state);
        this.results = h("div", { class: "results" }, this.failure, output, this.plots.element, this.facts);
        show(this.failure, false);
        show(this.plots.element, false);
    }
    get running() {
        return this.call !== undefined;
    }
    async start() {
        if (this.running || this.run.disabled)
            return;
        if (running >= MOST) {
            this.say(`${running} calls run in this page already; cancel one, or wait for it`);
            return;
        }
        this.run.disabled = true;
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
    cancel() {
        if (this.call === undefined)
            return;
        this.note = "cancelling";
        this.call.cancel();
        this.painter.touch();
    }
    say(words) {
        this.state.textContent = words;
        announce(words);
    }
    begin(call) {
        this.call = call;
        this.note = "opening";
        const onCancel = document.activeElement === this.run;
        this.run.disabled = true;
        this.cancelling.disabled = false;
        if (onCancel)
            this.cancelling.focus();
        show(this.failure, false);
        show(this.plots.element, true);
        this.facts.replaceChildren();
        this.part.begin();
        announce(`${this.part.name} runs`);
        this.paint();
    }
    see(frame) {
        if (frame.status === "queued")
            this.note = `waiting, place ${frame.position ?? "?"} in the queue`;
        else if (frame.status === "progress")
            this.note = progressOf(frame.data);
        else if (this.note !== "cancelling")
            this.note = frame.status === "accepted" ? "accepted" : "";
        this.part.see(frame);
        this.painter.touch();
    }
    end(call, ending) {
        this.call = undefined;
        this.run.disabled = false;
        if (document.activeElement === this.cancelling)
            this.run.focus();
        this.cancelling.disabled = true;
        const items = call.meter.items;
        const took = Number(ending.metrics["total_ms"]);
        const time = Number.isFinite(took) ? ` in ${round(took)} ms` : "";
        const why = ending.status === "cancelled" && ending.error !== "caller" ? ` (${ending.error ?? ""})` : "";
        const words = `${OUTCOMES[ending.status]}${why}${items > 0 ? `, ${items} items` : ""}${time}`;
        this.plots.draw(call.meter);
        this.part.end(ending);
        this.state.textContent = words;
        if (ending.status === "error")
            this.tell(call, ending);
        this.facts.replaceChildren(...factsOf(call, ending));
        const more = ending.status === "error" ? ending.error : this.part.spoken?.();
        announce([`${this.part.name}: ${words}`, more].filter(Boolean).join(". "));
    }
    tell(call, { error = "", code = "", retryable = false }) {
        const again = retryable ? " · the same call may go well later" : "";
        const id = call.stream.requestId ?? call.correlationId;
        this.failure.replaceChildren(h("p", { class: "message" }, error), h("p", {}, "Code ", h("code", { class: "code" }, code), " · id ", h("code", { class: "id" }, id), again));
        show(this.failure, true);
    }
    paint() {
        if (this.call === undefined)
            return;
        const { items } = this.call.meter;
        this.state.textContent = [`Running`, items > 0 ? `${items} items` : "", this.note].filter(Boolean).join(" · ");
        this.plots.draw(this.call.meter);
    }
}
function progressOf(data) {
    const { fraction, message } = (data ?? {});
    const share = typeof fraction === "number" ? `${Math.round(100 * fraction)} %` : "";
    return [share, typeof message === "string" ? message : ""].filter(Boolean).join(" ");
}
function factsOf({ stream, correlationId }, { metrics }) {
    const ids = [
        ["Task id", stream.taskId],
        ["Request id", stream.requestId],
        ["X-Request-Id", correlationId],
    ];
    const numbers = Object.entries(metrics).filter(([, value]) => typeof value === "number");
    const rows = [
        ...ids.filter(([, value]) => value !== undefined).map(([name, value]) => [name, h("code", {}, value ?? "")]),
        ...numbers.map(([name, value]) => [name, String(Math.round(Number(value) * 1000) / 1000)]),
    ];
    return rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
}
