import { PenstockError } from "../src/index.js";
import { ChatView } from "./chat_view.js";
import { CommandView } from "./command_view.js";
import { announce, byId, h, show } from "./dom.js";
import { Menu } from "./menu.js";
import { Session } from "./session.js";
import { TasksView } from "./tasks_view.js";
import { themed } from "./theme.js";
import { WorkflowView } from "./workflow_view.js";
const LOOK_MS = 5000;
const SOON_MS = 1000;
const INNER = new Set(["initialize", "cleanup"]);
class Page {
    session = new Session(new URL(".", document.baseURI).href);
    menu = new Menu();
    made = new Map();
    known = { commands: {}, workflows: {} };
    told = "";
    open;
    timer;
    start() {
        themed(byId("theme"));
        addEventListener("hashchange", () => this.go(true));
        document.addEventListener("keydown", (event) => this.key(event));
        document.addEventListener("visibilitychange", () => !document.hidden && void this.look());
        byId("skip").addEventListener("click", (event) => {
            event.preventDefault();
            byId("main").focus();
        });
        byId("keys").addEventListener("click", () => byId("help").showModal());
        byId("key-button").addEventListener("click", () => this.changeKey());
        this.session.addEventListener("key", () => void this.look());
        void this.look();
    }
    async look() {
        clearTimeout(this.timer);
        const known = await this.learn();
        clearTimeout(this.timer);
        const wait = known ? LOOK_MS : SOON_MS;
        this.timer = setTimeout(() => (document.hidden ? undefined : void this.look()), wait);
        const { hasKey } = this.session;
        byId("key-button").textContent = hasKey ? "Forget the key" : "Key";
    }
    async learn() {
        try {
            const description = await this.session.ask((client) => client.describe());
            const health = await this.session.client.health();
            const [name, version] = [health["name"], health["version"]].map((each) => (typeof each === "string" ? each : ""));
            this.say(health.status, name ?? "", version ?? "");
            return this.take(description, health.status);
        }
        catch (error) {
            if (!(error instanceof PenstockError))
                throw error;
            this.say("no answer", "", "");
            this.explain(error.message);
            return true;
        }
    }
    take(description, status) {
        const told = JSON.stringify([description.commands, description.workflows]);
        const some = Object.keys(description.commands).length > 0;
        const why = status === "starting" ? ": the project still loads, or no runner has come" : "";
        this.explain(some ? "" : `There is nothing to call here yet${why}.`);
        if (told !== this.told) {
            const first = this.told === "";
            this.told = told;
            this.known = description;
            this.menu.fill(description);
            this.go(!first && this.open === undefined);
        }
        return some;
    }
    say(status, name, version) {
        const badge = byId("status");
        if (badge.textContent !== status)
            badge.textContent = status;
        badge.dataset["state"] = status;
        byId("version").textContent = version;
        if (name === "")
            return;
        byId("name").textContent = name;
        document.title = `${name} · penstock`;
    }
    explain(words) {
        const shown = byId("explain");
        if (shown.textContent !== words)
            shown.textContent = words;
        show(shown, words !== "");
    }
    go(moved) {
        const place = location.hash.startsWith("#/") ? location.hash : this.home();
        if (place === undefined)
            return;
        const view = this.view(place);
        this.menu.mark(place);
        if (view === this.open)
            return;
        this.open?.left();
        this.open = view;
        byId("view").replaceChildren(...(view === undefined ? [missing(place)] : [view.element]));
        view?.shown();
        performance.mark("usable");
        if (moved && !byId("view").contains(document.activeElement))
            byId("view").querySelector("h1")?.focus();
    }
    home() {
        const [chat] = Object.entries(this.known.commands).find(([, { openai }]) => openai === "chat") ?? [];
        if (chat !== undefined)
            return `#/chat/${encodeURIComponent(chat)}`;
        const name = Object.keys(this.known.commands).find((each) => !INNER.has(each));
        return name === undefined ? undefined : `#/command/${encodeURIComponent(name)}`;
    }
    view(place) {
        const [, kind, written = ""] = place.split("/");
        const name = decoded(written);
        const told = kind === "workflow" ? this.known.workflows[name] : kind === "tasks" ? {} : this.known.commands[name];
        const from = JSON.stringify(told) ?? "";
        const made = this.made.get(place);
        if (made?.from === from)
            return made.view;
        const view = this.make(kind ?? "", name);
        if (view !== undefined)
            this.made.set(place, { from, view });
        return view;
    }
    make(kind, name) {
        const command = this.known.commands[name];
        const workflow = this.known.workflows[name];
        if (kind === "tasks")
            return new TasksView(this.session);
        if (kind === "workflow" && workflow !== undefined)
            return new WorkflowView(name, workflow, this.session);
        if (kind === "chat" && command !== undefined)
            return new ChatView(name, command, this.session);
        return kind === "command" && command !== undefined ? new CommandView(name, command, this.session) : undefined;
    }
    key(event) {
        if (document.querySelector("dialog[open]") !== null)
            return;
        if (event.key === "Escape")
            this.open?.cancel();
        if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            this.menu.focus();
        }
    }
    changeKey() {
        if (this.session.hasKey) {
            this.session.forget();
            announce("The key is forgotten");
        }
        else
            void this.session.askKey();
    }
}
function missing(place) {
    return h("section", {}, h("h1", { tabindex: -1 }, "There is nothing here"), h("p", {}, `The server has no ${place.slice(2)}.`));
}
function decoded(written) {
    try {
        return decodeURIComponent(written);
    }
    catch {
        return written;
    }
}
new Page().start();
