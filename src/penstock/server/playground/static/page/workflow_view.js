import { h, show } from "./dom.js";
import { Form } from "./form.js";
import { ItemsPane, TextPane, textIn } from "./panes.js";
import { RunPanel } from "./run_panel.js";
import { heading, submits } from "./shape.js";
export class WorkflowView {
    name;
    session;
    element;
    form;
    steps;
    output = new ItemsPane();
    panel;
    constructor(name, workflow, session) {
        this.name = name;
        this.session = session;
        this.form = new Form(workflow.input_schema);
        this.steps = stepsOf(workflow.steps).map((told) => new Step(told));
        const list = h("ol", { class: "steps", "aria-label": "Steps" }, ...this.steps.map(({ element }) => element));
        this.panel = new RunPanel(this, h("div", {}, list, this.output.element));
        const form = submits(this.panel, this.form.element, this.panel.buttons);
        const head = heading(name, `workflow · ${this.steps.length} steps`, workflow.description ?? "");
        this.element = h("section", {}, head, form, this.panel.results);
        show(this.output.element, false);
    }
    async prepare() {
        const input = await this.form.input();
        if (input === undefined)
            return undefined;
        const { client } = this.session;
        return (signal, correlationId) => client.workflow(this.name, input, { signal, correlationId, notes: true });
    }
    begin() {
        for (const step of this.steps)
            step.reset();
        this.output.clear();
        show(this.output.element, false);
        this.reach(0);
    }
    see(frame) {
        const step = this.steps.find(({ told }) => told.id === frame.step);
        if (step !== undefined) {
            this.reach(step.told.group);
            step.see(frame);
        }
        else if (frame.status === "completed") {
            this.output.add(frame.data);
            this.output.element.open = true;
            show(this.output.element, true);
        }
    }
    end(ending) {
        this.output.flush();
        const failed = new Set(ending.details.map((detail) => detail["step"]));
        const where = this.steps.find(({ told }) => failed.has(told.id));
        if (where !== undefined)
            this.reach(where.told.group);
        for (const step of this.steps)
            step.end(ending.status, failed.has(step.told.id));
        this.form.blame(ending.details, ending.error ?? "");
        if (ending.code === "unauthenticated")
            void this.session.askKey();
    }
    cancel() {
        this.panel.cancel();
    }
    shown() { }
    left() { }
    reach(group) {
        for (const step of this.steps) {
            if (step.told.group < group)
                step.pass();
            else if (step.told.group === group)
                step.run();
        }
    }
}
class Step {
    told;
    element;
    badge = h("span", { class: "badge" });
    note = h("span", { class: "note" });
    text;
    items = new ItemsPane();
    state = "waiting";
    heard = false;
    constructor(told) {
        this.told = told;
        this.text = new TextPane(`Output of ${told.id}`);
        const head = h("p", { class: "step" }, h("strong", {}, told.id), ` ${told.command} `, this.badge, this.note);
        this.element = h("li", {}, head, this.text.element, this.items.element);
        this.reset();
    }
    reset() {
        this.heard = false;
        this.note.textContent = "";
        this.text.clear();
        this.items.clear();
        show(this.text.element, false);
        show(this.items.element, false);
        this.turn("waiting");
    }
    run() {
        if (this.state === "waiting")
            this.turn("running");
    }
    pass() {
        if (this.state === "running" || this.state === "waiting")
            this.turn(this.heard ? "done" : "skipped");
    }
    see(frame) {
        this.note.textContent = frame.status === "queued" ? ` waits, place ${frame.position ?? "?"}` : "";
        if (frame.status !== "streaming")
            return;
        this.heard = true;
        const text = textIn(frame.data);
        if (text !== undefined)
            this.text.add(text);
        this.items.add(frame.data);
        show(this.text.element, text !== undefined || !this.text.element.hidden);
        show(this.items.element, true);
    }
    end(outcome, failed) {
        this.note.textContent = "";
        this.text.flush();
        this.items.flush();
        if (outcome === "completed")
            this.pass();
        else if (failed)
            this.turn("failed");
        else if (this.state === "running")
            this.turn("cancelled");
    }
    turn(state) {
        this.state = state;
        this.badge.textContent = state;
        this.element.dataset["state"] = state;
    }
}
function stepsOf(steps) {
    return steps.flatMap((step, group) => {
        const several = Array.isArray(step["parallel"]) ? step["parallel"] : [step];
        return several.map((each) => ({
            id: String(each["id"]),
            command: String(each["command"]),
            group,
        }));
    });
}
