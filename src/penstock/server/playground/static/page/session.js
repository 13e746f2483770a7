import { CallError, Client } from "../src/index.js";
import { h } from "./dom.js";
const KEPT_AS = "penstock.key";
export class Session extends EventTarget {
    base;
    client;
    asking;
    declined = false;
    constructor(base) {
        super();
        this.base = base;
        this.client = this.connect();
    }
    get hasKey() {
        return keptKey() !== undefined;
    }
    async ask(work) {
        for (;;) {
            try {
                return await work(this.client);
            }
            catch (error) {
                if (!wantsKey(error) || this.declined)
                    throw error;
                const why = this.hasKey ? "The server does not know this key, or no longer." : "";
                if (!(await this.askKey(why)))
                    throw error;
            }
        }
    }
    askKey(why = "") {
        this.asking ??= promptFor(why).then((key) => {
            this.asking = undefined;
            this.declined = key === undefined;
            if (key === undefined)
                return false;
            keep(key);
            this.reconnect();
            return true;
        });
        return this.asking;
    }
    forget() {
        keep(undefined);
        this.declined = false;
        this.reconnect();
    }
    reconnect() {
        this.client = this.connect();
        this.dispatchEvent(new Event("key"));
    }
    connect() {
        const apiKey = keptKey();
        const retry = { attempts: 3 };
        return new Client(this.base, apiKey === undefined ? { retry } : { apiKey, retry });
    }
}
export function wantsKey(error) {
    return error instanceof CallError && error.code === "unauthenticated";
}
let here;
function keptKey() {
    try {
        return sessionStorage.getItem(KEPT_AS) ?? undefined;
    }
    catch {
        return here;
    }
}
function keep(key) {
    here = key;
    try {
        if (key === undefined)
            sessionStorage.removeItem(KEPT_AS);
        else
            sessionStorage.setItem(KEPT_AS, key);
    }
    catch {
    }
}
function promptFor(why) {
    const box = h("input", { type: "password", id: "key", autocomplete: "off", required: true, spellcheck: "false" });
    const words = h("p", { role: "alert" }, why);
    const form = h("form", { method: "dialog" }, h("h2", { id: "key-title" }, "This server wants a key"), words, h("label", { for: "key" }, "API key"), box, h("p", { class: "hint" }, "It is kept in this tab until that is closed, and sent to this server only."), h("button", { class: "main", type: "submit" }, "Use it"));
    const dialog = h("dialog", { "aria-labelledby": "key-title" }, form);
    document.body.append(dialog);
    dialog.showModal();
    box.focus();
    return new Promise((resolve) => {
        form.addEventListener("submit", (event) => {
            event.preventDefault();
            const key = box.value.trim();
            if (!/^[\x21-\x7e]+$/.test(key)) {
                words.textContent = "A key has no spaces and no letters beyond ASCII.";
                return;
            }
            resolve(key);
            dialog.close();
        });
        dialog.addEventListener("close", () => {
            dialog.remove();
            resolve(undefined);
        });
    });
}
