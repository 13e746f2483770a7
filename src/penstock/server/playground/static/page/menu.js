import { byId, h, show } from "./dom.js";
const MANY = 8;
const WIDE = "(min-width: 48rem)";
export class Menu {
    box = byId("menu");
    list = byId("places");
    filter = byId("filter");
    links = [];
    constructor() {
        const wide = matchMedia(WIDE);
        const fold = () => void (this.box.open = wide.matches);
        wide.addEventListener("change", fold);
        fold();
        this.filter.addEventListener("input", () => this.search());
        this.list.addEventListener("click", () => void (this.box.open = wide.matches));
    }
    fill({ commands, workflows }) {
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
    mark(place) {
        for (const each of this.links) {
            if (each.getAttribute("href") === place)
                each.setAttribute("aria-current", "page");
            else
                each.removeAttribute("aria-current");
        }
    }
    focus() {
        this.box.open = true;
        if (this.filter.offsetParent !== null)
            this.filter.focus();
        else
            this.links[0]?.focus();
    }
    search() {
        const wanted = this.filter.value.trim().toLowerCase();
        for (const each of this.links) {
            const place = each.closest("li");
            if (place !== null)
                show(place, (each.textContent ?? "").toLowerCase().includes(wanted));
        }
    }
}
function link(kind, name) {
    return h("a", { href: `#/${kind}/${encodeURIComponent(name)}` }, name);
}
function group(name, links) {
    if (links.length === 0)
        return [];
    return [h("h2", {}, name), h("ul", { "aria-label": name }, ...links.map((each) => h("li", {}, each)))];
}
