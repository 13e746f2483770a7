/** The calls a server knows. */

import type { Task } from "../src/index.js";
import { PenstockError } from "../src/index.js";
import { announce, h } from "./dom.js";
import type { Session } from "./session.js";
import { heading } from "./shape.js";
import type { View } from "./views.js";

const SHOWN = 100;
const EVERY_MS = 2000;
const SHARE = 10; // a list that takes long to get is asked for less often
const LIVE = new Set(["accepted", "streaming"]);

/** Lists calls, newest first, and cancels those that run. */
export class TasksView implements View {
  readonly element: HTMLElement;
  private readonly rows = h("tbody");
  private readonly state = h("p", { class: "state" });
  private readonly shownRows = new Map<string, HTMLTableRowElement>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private seen = false;

  constructor(private readonly session: Session) {
    const names = ["Call", "Status", "Started", "Took", "Frames", ""];
    const head = h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name))));
    const table = h("table", {}, h("caption", {}, "Calls, newest first"), head, this.rows);
    const again = h("button", { type: "button", click: () => void this.look() }, "Refresh");
    const top = h("div", { class: "buttons" }, again, this.state);
    this.element = h("section", {}, heading("Tasks", "the calls this server knows", ""), top, table);
  }

  cancel(): void {}

  shown(): void {
    this.seen = true;
    void this.look();
  }

  left(): void {
    this.seen = false;
    clearTimeout(this.timer);
  }

  private async look(): Promise<void> {
    clearTimeout(this.timer);
    const began = performance.now();
    try {
      const tasks = await this.session.ask((client) => client.tasks());
      this.list(tasks);
    } catch (error) {
      if (!(error instanceof PenstockError)) throw error;
      this.state.textContent = error.message;
    }
    const wait = Math.max(EVERY_MS, SHARE * (performance.now() - began));
    clearTimeout(this.timer);
    if (this.seen) this.timer = setTimeout(() => void (document.hidden ? this.later() : this.look()), wait);
  }

  private later(): void {
    document.addEventListener("visibilitychange", () => this.seen && void this.look(), { once: true });
  }

  private list(tasks: readonly Task[]): void {
    const running = tasks.filter(({ status }) => LIVE.has(status)).length;
    const newest = tasks.slice(-SHOWN).reverse();
    const more = tasks.length > SHOWN ? `, of which the last ${SHOWN} are shown` : "";
    this.state.textContent = `${tasks.length} known${more}, ${running} running`;
    // Rows stay the same elements, so that the focus stays where it is.
    const rows = newest.map((task) => this.row(task));
    const now = [...this.rows.children];
    if (rows.length !== now.length || rows.some((row, at) => row !== now[at])) this.place(rows);
    const kept = new Set(newest.map(({ request_id }) => request_id));
    for (const id of this.shownRows.keys()) if (!kept.has(id)) this.shownRows.delete(id);
  }

  private place(rows: readonly HTMLElement[]): void {
    const focused = document.activeElement;
    this.rows.replaceChildren(...rows);
    if (focused instanceof HTMLElement && this.rows.contains(focused)) focused.focus();
  }

  private row(task: Task): HTMLTableRowElement {
    const { request_id, status } = task;
    const row = this.shownRows.get(request_id) ?? h("tr");
    this.shownRows.set(request_id, row);
    const mark = `${status} ${task.next_seq}`;
    if (row.dataset["mark"] === mark) return row;
    row.dataset["mark"] = mark;
    row.dataset["state"] = status;
    const button = row.querySelector("button");
    const cells = [
      h("th", { scope: "row" }, whatOf(task), h("br"), h("code", {}, task.task_id)),
      cell("Status", h("span", { class: "badge" }, status), codeOf(task)),
      cell("Started", new Date(1000 * task.accepted_at).toLocaleTimeString()),
      cell("Took", tookOf(task)),
      cell("Frames", String(task.next_seq)),
    ];
    const last = row.lastElementChild;
    if (last === null || (button !== null && !LIVE.has(status))) {
      row.replaceChildren(...cells, LIVE.has(status) ? this.action(task) : cell("", ""));
    } else {
      while (row.children.length > 1) row.firstElementChild?.remove(); // the button stays, and may be in use
      last.before(...cells);
    }
    return row;
  }

  private action(task: Task): HTMLElement {
    const cancel = (): void => void this.stop(task);
    return cell("", h("button", { type: "button", "aria-label": `Cancel ${task.task_id}`, click: cancel }, "Cancel"));
  }

  private async stop({ request_id, task_id }: Task): Promise<void> {
    try {
      const outcome = await this.session.ask((client) => client.cancel(request_id));
      announce(outcome === "cancelled" ? `${task_id} was cancelled` : `${task_id} had ended already`);
    } catch (error) {
      if (!(error instanceof PenstockError)) throw error;
      announce(error.message);
    }
    await this.look();
  }
}

function cell(name: string, ...content: readonly (Node | string)[]): HTMLElement {
  return h("td", { "data-name": name }, ...content);
}

function whatOf({ command, workflow_id }: Task): string {
  return command ?? workflow_id ?? "";
}

function codeOf(task: Task): string {
  const why = task["code"] ?? task["reason"];
  return typeof why === "string" ? ` ${why}` : "";
}

function tookOf(task: Task): string {
  const ended = task["finished_at"];
  if (typeof ended !== "number") return "–";
  const seconds = ended - task.accepted_at;
  return seconds < 1 ? `${(1000 * seconds).toFixed(0)} ms` : `${seconds.toFixed(1)} s`;
}
