/** A workflow: its form, and its steps as they run. */

import type { Frame, WorkflowDescription } from "../src/index.js";
import type { Ending, Opener } from "./call.js";
import { h, show } from "./dom.js";
import { Form } from "./form.js";
import { ItemsPane, TextPane, textIn } from "./panes.js";
import type { Part } from "./run_panel.js";
import { RunPanel } from "./run_panel.js";
import type { Session } from "./session.js";
import { heading, submits } from "./shape.js";
import type { View } from "./views.js";

type State = "waiting" | "running" | "done" | "skipped" | "failed" | "cancelled";

interface Told {
  readonly id: string;
  readonly command: string;
  /** Which group it is in; the groups run one after the other. */
  readonly group: number;
}

/** Runs a workflow. */
export class WorkflowView implements View, Part {
  readonly element: HTMLElement;
  private readonly form: Form;
  private readonly steps: readonly Step[];
  private readonly output = new ItemsPane();
  private readonly panel: RunPanel;

  constructor(
    readonly name: string,
    workflow: WorkflowDescription,
    private readonly session: Session,
  ) {
    this.form = new Form(workflow.input_schema);
    this.steps = stepsOf(workflow.steps).map((told) => new Step(told));
    const list = h("ol", { class: "steps", "aria-label": "Steps" }, ...this.steps.map(({ element }) => element));
    this.panel = new RunPanel(this, h("div", {}, list, this.output.element));
    const form = submits(this.panel, this.form.element, this.panel.buttons);
    const head = heading(name, `workflow · ${this.steps.length} steps`, workflow.description ?? "");
    this.element = h("section", {}, head, form, this.panel.results);
    show(this.output.element, false);
  }

  async prepare(): Promise<Opener | undefined> {
    const input = await this.form.input();
    if (input === undefined) return undefined;
    const { client } = this.session;
    return (signal, correlationId) => client.workflow(this.name, input, { signal, correlationId, notes: true });
  }

  begin(): void {
    for (const step of this.steps) step.reset();
    this.output.clear();
    show(this.output.element, false);
    this.reach(0);
  }

  see(frame: Frame): void {
    const step = this.steps.find(({ told }) => told.id === frame.step);
    if (step !== undefined) {
      this.reach(step.told.group);
      step.see(frame);
    } else if (frame.status === "completed") {
      this.output.add(frame.data);
      this.output.element.open = true;
      show(this.output.element, true);
    }
  }

  end(ending: Ending): void {
    this.output.flush();
    const failed = new Set(ending.details.map((detail) => detail["step"]));
    const where = this.steps.find(({ told }) => failed.has(told.id));
    if (where !== undefined) this.reach(where.told.group); // it may have failed before it said anything
    for (const step of this.steps) step.end(ending.status, failed.has(step.told.id));
    this.form.blame(ending.details, ending.error ?? "");
    if (ending.code === "unauthenticated") void this.session.askKey();
  }

  cancel(): void {
    this.panel.cancel();
  }

  shown(): void {}

  left(): void {}

  /** Those before a group have ended when something is heard of it. */
  private reach(group: number): void {
    for (const step of this.steps) {
      if (step.told.group < group) step.pass();
      else if (step.told.group === group) step.run();
    }
  }
}

class Step {
  readonly element: HTMLElement;
  private readonly badge = h("span", { class: "badge" });
  private readonly note = h("span", { class: "note" });
  private readonly text: TextPane;
  private readonly items = new ItemsPane();
  private state: State = "waiting";
  private heard = false;

  constructor(readonly told: Told) {
    this.text = new TextPane(`Output of ${told.id}`);
    const head = h("p", { class: "step" }, h("strong", {}, told.id), ` ${told.command} `, this.badge, this.note);
    this.element = h("li", {}, head, this.text.element, this.items.element);
    this.reset();
  }

  reset(): void {
    this.heard = false;
    this.note.textContent = "";
    this.text.clear();
    this.items.clear();
    show(this.text.element, false);
    show(this.items.element, false);
    this.turn("waiting");
  }

  /** Its group is due. */
  run(): void {
    if (this.state === "waiting") this.turn("running");
  }

  /** A later group is due. */
  pass(): void {
    if (this.state === "running" || this.state === "waiting") this.turn(this.heard ? "done" : "skipped");
  }

  see(frame: Frame): void {
    this.note.textContent = frame.status === "queued" ? ` waits, place ${frame.position ?? "?"}` : "";
    if (frame.status !== "streaming") return;
    this.heard = true;
    const text = textIn(frame.data);
    if (text !== undefined) this.text.add(text);
    this.items.add(frame.data);
    show(this.text.element, text !== undefined || !this.text.element.hidden);
    show(this.items.element, true);
  }

  end(outcome: Ending["status"], failed: boolean): void {
    this.note.textContent = "";
    this.text.flush();
    this.items.flush();
    if (outcome === "completed") this.pass();
    else if (failed) this.turn("failed");
    else if (this.state === "running") this.turn("cancelled");
  }

  private turn(state: State): void {
    this.state = state;
    this.badge.textContent = state;
    this.element.dataset["state"] = state;
  }
}

function stepsOf(steps: readonly Readonly<Record<string, unknown>>[]): Told[] {
  return steps.flatMap((step, group) => {
    const several = Array.isArray(step["parallel"]) ? step["parallel"] : [step];
    return several.map((each: Record<string, unknown>) => ({
      id: String(each["id"]),
      command: String(each["command"]),
      group,
    }));
  });
}
