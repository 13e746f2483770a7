import { h, show } from "./dom.js";
import { Form } from "./form.js";
import { ItemsPane, TextPane, textIn } from "./panes.js";
import { RunPanel } from "./run_panel.js";
import { heading, submits } from "./shape.js";
export class CommandView {
    name;
    session;
    element;
    form;
    text = new TextPane("Output");
    items = new ItemsPane();
    panel;
    constructor(name, command, session) {
        this.name = name;
        this.session = session;
        this.form = new Form(command.input_schema);
        this.panel = new RunPanel(this, h("div", {}, this.text.element, this.items.element));
        const form = submits(this.panel, this.form.element, this.panel.buttons);
        const chat = command["openai"] === "chat" ? [h("a", { href: `#/chat/${encodeURIComponent(name)}` }, "Chat instead")] : [];
        const kind = command.streaming ? "streams its answer" : "answers once";
        this.element = h("section", {}, heading(name, `command · ${kind}`, command.description, ...chat), form, this.panel.results);
        show(this.text.element, false);
        show(this.items.element, false);
    }
    async prepare() {
        const input = await this.form.input();
        if (input === undefined)
            return undefined;
        const { client } = this.session;
        return (signal, correlationId) => client.stream(this.name, input, { signal, correlationId, notes: true });
    }
    begin() {
        this.text.clear();
        this.items.clear();
        show(this.text.element, false);
        show(this.items.element, false);
    }
    see(frame) {
        if (frame.data === undefined || frame.status === "progress")
            return;
        const text = textIn(frame.data);
        if (text !== undefined) {
            show(this.text.element, true);
            this.text.add(text);
        }
        else {
            this.items.element.open ||= this.items.element.hidden;
        }
        show(this.items.element, true);
        this.items.add(frame.data);
    }
    end(ending) {
        this.text.flush();
        this.items.flush();
        this.form.blame(ending.details, ending.error ?? "");
        if (ending.code === "unauthenticated")
            void this.session.askKey();
    }
    cancel() {
        this.panel.cancel();
    }
    shown() { }
    left() { }
}
