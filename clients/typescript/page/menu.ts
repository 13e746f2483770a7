/** What can be gone to. */

import type { Description } from "../src/index.js";
import { byId, h, show } from "./dom.js";

const MANY = 8; // commands past which they can be searched
const WIDE = "(min-width: 48rem)";

/** The commands and workflows of a server, as links. */
export class Menu {
  private readonly box = byId("menu") as HTMLDetailsElement;
  private readonly list = byId("places");
  private readonly filter = byId("filter") as HTMLInputElement;
  private links: readonly HTMLAnchorElement[] = [];

  constructor() {
    const wide = matchMedia(WIDE);
    const fold = (): void => void (this.box.open = wide.matches);
    wide.addEventListener("change", fold);
    fold();
    this.filter.addEventListener("input", () => this.search());
    this.list.addEventListener("click", () => void (this.box.open = wide.matches));
  }

  /** Show what a server has. */
  fill({ commands, workflows }: Description): void {
    const names = Object.keys(commands);
    const chats = names.filter((name) => commands[name]?.["openai"] === "chat");
    const groups = [
      group("Chat", chats.map((name) => link("chat", name))),
      group("Commands", names.map((name) => link("command", name))),
      group("Workflows", Object.keys(workflows).map((name) => link("workflow", name))),
      group("Server", [h("a", { href: "#/tasks" }, "Tasks")]),
    ];
    this.list.replaceChildren(...groups.flat());
    this.links = [...this.list.querySelectorAll("a")];
    show(byId("search"), names.length > MANY);
    this.search();
  }

  /** Mark where the user is. */
  mark(place: string): void {
    for (const each of this.links) {
      if (each.getAttribute("href") === place) each.setAttribute("aria-current", "page");
      else each.removeAttribute("aria-current");
    }
  }

  /** Go to it. */
  focus(): void {
    this.box.open = true;
    if (this.filter.offsetParent !== null) this.filter.focus();
    else this.links[0]?.focus();
  }

  private search(): void {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const each of this.links) {
      const place = each.closest("li");
      if (place !== null) show(place, (each.textContent ?? "").toLowerCase().includes(wanted));
    }
  }
}

function link(kind: string, name: string): HTMLAnchorElement {
  return h("a", { href: `#/${kind}/${encodeURIComponent(name)}` }, name);
}

function group(name: string, links: readonly HTMLAnchorElement[]): Node[] {
  if (links.length === 0) return [];
  return [h("h2", {}, name), h("ul", { "aria-label": name }, ...links.map((each) => h("li", {}, each)))];
}
