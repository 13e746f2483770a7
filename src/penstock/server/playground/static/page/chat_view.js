import { h, show } from "./dom.js";
import { Form } from "./form.js";
import { TextPane, textIn } from "./panes.js";
import { RunPanel } from "./run_panel.js";
import { heading, submits } from "./shape.js";
const SPOKEN = 1000;
export class ChatView {
    name;
    session;
    element;
    box = h("textarea", { id: "say", rows: 2, autocomplete: "off", keydown: (event) => this.key(event) });
    system = h("textarea", { id: "system", rows: 2, autocomplete: "off" });
    turns = h("ol", { class: "turns", "aria-label": "Conversation" });
    form;
    panel;
    said = [];
    asked = "";
    answer = "";
    pane;
    constructor(name, command, session) {
        this.name = name;
        this.session = session;
        this.form = new Form(command.input_schema, new Set(["messages"]));
        this.panel = new RunPanel(this, h("div"), "Send");
        const anew = h("button", { type: "button", click: () => this.reset() }, "New conversation");
        this.panel.buttons.append(anew);
        const form = submits(this.panel, this.turns, h("label", { for: "say" }, "Your message"), this.box, h("p", { class: "hint typing" }, "Enter sends, Shift and Enter begin a line, Escape cancels the answer."), this.panel.buttons, this.settings());
        const other = h("a", { href: `#/command/${encodeURIComponent(name)}` }, "Form instead");
        this.element = h("section", {}, heading(name, "chat", command.description, other), form, this.panel.results);
    }
    async prepare() {
        const rest = await this.form.input();
        this.asked = this.box.value.trim();
        if (this.asked === "")
            this.box.focus();
        if (rest === undefined || this.asked === "")
            return undefined;
        const system = this.system.value.trim();
        const first = system === "" ? [] : [{ role: "system", content: system }];
        const messages = [...first, ...this.said, { role: "user", content: this.asked }];
        const { client } = this.session;
        return (signal, correlationId) => client.stream(this.name, { ...rest, messages }, { signal, correlationId, notes: true });
    }
    begin() {
        this.answer = "";
        this.box.value = "";
        this.pane = new TextPane("Answer", this.box);
        const waits = h("p", { class: "thinking" }, "…");
        this.turns.append(turnOf("user", "You", h("div", { class: "text" }, this.asked)));
        this.turns.append(turnOf("assistant", this.name, waits, this.pane.element));
        this.box.scrollIntoView({ block: "nearest" });
    }
    see(frame) {
        if (frame.data === undefined || frame.status === "progress" || this.pane === undefined)
            return;
        const text = textIn(frame.data);
        if (text === undefined)
            return;
        this.answer = text.all ? text.text : this.answer + text.text;
        if (this.answer !== "")
            this.thinks(false);
        this.pane.add(text);
    }
    end(ending) {
        this.thinks(false);
        this.pane?.flush();
        const last = this.turns.lastElementChild;
        if (ending.status === "error" && this.answer === "") {
            last?.previousElementSibling?.remove();
            last?.remove();
            if (this.box.value === "")
                this.box.value = this.asked;
        }
        else {
            this.said.push({ role: "user", content: this.asked }, { role: "assistant", content: this.answer });
            if (ending.status !== "completed")
                last?.append(h("p", { class: "hint" }, `${ending.status}: it says no more`));
        }
        this.form.blame(ending.details, ending.error ?? "");
        if (ending.code === "unauthenticated")
            void this.session.askKey();
        else
            this.box.focus();
    }
    spoken() {
        return this.answer.slice(0, SPOKEN);
    }
    cancel() {
        this.panel.cancel();
    }
    shown() {
        this.box.focus();
    }
    left() { }
    settings() {
        const system = [
            h("label", { for: "system" }, "System prompt"),
            this.system,
            h("p", { class: "hint" }, "What it is told before the conversation; it holds from the next message on."),
        ];
        const more = this.form.empty ? [] : [this.form.element];
        return h("details", { class: "settings" }, h("summary", {}, "Settings"), ...system, ...more);
    }
    key(event) {
        if (!(event instanceof KeyboardEvent) || event.key !== "Enter")
            return;
        if (event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing)
            return;
        event.preventDefault();
        void this.panel.start();
    }
    reset() {
        if (this.panel.running)
            return;
        this.said = [];
        this.turns.replaceChildren();
        this.box.focus();
    }
    thinks(yes) {
        for (const each of this.turns.querySelectorAll(".thinking"))
            show(each, yes);
    }
}
function turnOf(role, who, ...content) {
    return h("li", { class: `turn ${role}` }, h("p", { class: "who" }, who), ...content);
}
