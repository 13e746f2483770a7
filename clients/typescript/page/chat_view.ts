/** A conversation with a command that continues one. */

import type { CommandDescription, Frame } from "../src/index.js";
import type { Ending, Opener } from "./call.js";
import { h, show } from "./dom.js";
import { Form } from "./form.js";
import { TextPane, textIn } from "./panes.js";
import type { Part } from "./run_panel.js";
import { RunPanel } from "./run_panel.js";
import type { Session } from "./session.js";
import { heading, submits } from "./shape.js";
import type { View } from "./views.js";

const SPOKEN = 1000; // characters of an answer that are read out

interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** Talks with a command, turn by turn. */
export class ChatView implements View, Part {
  readonly element: HTMLElement;
  private readonly box = h("textarea", { id: "say", rows: 2, autocomplete: "off", keydown: (event) => this.key(event) });
  private readonly system = h("textarea", { id: "system", rows: 2, autocomplete: "off" });
  private readonly turns = h("ol", { class: "turns", "aria-label": "Conversation" });
  private readonly form: Form;
  private readonly panel: RunPanel;
  private said: Message[] = [];
  private asked = "";
  private answer = "";
  private pane: TextPane | undefined;

  constructor(
    readonly name: string,
    command: CommandDescription,
    private readonly session: Session,
  ) {
    this.form = new Form(command.input_schema, new Set(["messages"]));
    this.panel = new RunPanel(this, h("div"), "Send");
    const anew = h("button", { type: "button", click: () => this.reset() }, "New conversation");
    this.panel.buttons.append(anew);
    const form = submits(
      this.panel,
      this.turns,
      h("label", { for: "say" }, "Your message"),
      this.box,
      h("p", { class: "hint typing" }, "Enter sends, Shift and Enter begin a line, Escape cancels the answer."),
      this.panel.buttons,
      this.settings(),
    );
    const other = h("a", { href: `#/command/${encodeURIComponent(name)}` }, "Form instead");
    this.element = h("section", {}, heading(name, "chat", command.description, other), form, this.panel.results);
  }

  async prepare(): Promise<Opener | undefined> {
    const rest = await this.form.input();
    this.asked = this.box.value.trim();
    if (this.asked === "") this.box.focus();
    if (rest === undefined || this.asked === "") return undefined;
    const system = this.system.value.trim();
    const first: Message[] = system === "" ? [] : [{ role: "system", content: system }];
    const messages = [...first, ...this.said, { role: "user", content: this.asked }];
    const { client } = this.session;
    return (signal, correlationId) =>
      client.stream(this.name, { ...rest, messages }, { signal, correlationId, notes: true });
  }

  begin(): void {
    this.answer = "";
    this.box.value = "";
    this.pane = new TextPane("Answer", this.box);
    const waits = h("p", { class: "thinking" }, "…");
    this.turns.append(turnOf("user", "You", h("div", { class: "text" }, this.asked)));
    this.turns.append(turnOf("assistant", this.name, waits, this.pane.element));
    this.box.scrollIntoView({ block: "nearest" });
  }

  see(frame: Frame): void {
    if (frame.data === undefined || frame.status === "progress" || this.pane === undefined) return;
    const text = textIn(frame.data);
    if (text === undefined) return;
    this.answer = text.all ? text.text : this.answer + text.text;
    if (this.answer !== "") this.thinks(false);
    this.pane.add(text);
  }

  end(ending: Ending): void {
    this.thinks(false);
    this.pane?.flush();
    const last = this.turns.lastElementChild;
    if (ending.status === "error" && this.answer === "") {
      last?.previousElementSibling?.remove();
      last?.remove();
      if (this.box.value === "") this.box.value = this.asked;
    } else {
      this.said.push({ role: "user", content: this.asked }, { role: "assistant", content: this.answer });
      if (ending.status !== "completed") last?.append(h("p", { class: "hint" }, `${ending.status}: it says no more`));
    }
    this.form.blame(ending.details, ending.error ?? "");
    if (ending.code === "unauthenticated") void this.session.askKey();
    else this.box.focus();
  }

  spoken(): string {
    return this.answer.slice(0, SPOKEN);
  }

  cancel(): void {
    this.panel.cancel();
  }

  shown(): void {
    this.box.focus();
  }

  left(): void {}

  private settings(): HTMLElement {
    const system = [
      h("label", { for: "system" }, "System prompt"),
      this.system,
      h("p", { class: "hint" }, "What it is told before the conversation; it holds from the next message on."),
    ];
    const more = this.form.empty ? [] : [this.form.element];
    return h("details", { class: "settings" }, h("summary", {}, "Settings"), ...system, ...more);
  }

  private key(event: Event): void {
    if (!(event instanceof KeyboardEvent) || event.key !== "Enter") return;
    if (event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing) return; // the form knows Ctrl and Enter
    event.preventDefault();
    void this.panel.start();
  }

  private reset(): void {
    if (this.panel.running) return;
    this.said = [];
    this.turns.replaceChildren();
    this.box.focus();
  }

  private thinks(yes: boolean): void {
    for (const each of this.turns.querySelectorAll<HTMLElement>(".thinking")) show(each, yes);
  }
}

function turnOf(role: string, who: string, ...content: readonly Node[]): HTMLElement {
  return h("li", { class: `turn ${role}` }, h("p", { class: "who" }, who), ...content);
}
