/** The client of this page, and the key it needs. */

import { CallError, Client } from "../src/index.js";
import { h } from "./dom.js";

const KEPT_AS = "penstock.key";

/** Who is asked when a key is missing. */
export class Session extends EventTarget {
  client: Client;
  private asking: Promise<boolean> | undefined;
  private declined = false;

  constructor(private readonly base: string) {
    super();
    this.client = this.connect();
  }

  /** Whether there is a key. */
  get hasKey(): boolean {
    return keptKey() !== undefined;
  }

  /** Do something that may need a key, again once there is one. */
  async ask<T>(work: (client: Client) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work(this.client);
      } catch (error) {
        if (!wantsKey(error) || this.declined) throw error; // asked for once, unless by the user's own wish
        const why = this.hasKey ? "The server does not know this key, or no longer." : "";
        if (!(await this.askKey(why))) throw error;
      }
    }
  }

  /** Have the user give a key; return whether there is one now. */
  askKey(why = ""): Promise<boolean> {
    this.asking ??= promptFor(why).then((key) => {
      this.asking = undefined;
      this.declined = key === undefined;
      if (key === undefined) return false;
      keep(key);
      this.reconnect();
      return true;
    });
    return this.asking;
  }

  /** Forget the key. */
  forget(): void {
    keep(undefined);
    this.declined = false;
    this.reconnect();
  }

  private reconnect(): void {
    this.client = this.connect();
    this.dispatchEvent(new Event("key"));
  }

  private connect(): Client {
    const apiKey = keptKey();
    const retry = { attempts: 3 };
    return new Client(this.base, apiKey === undefined ? { retry } : { apiKey, retry });
  }
}

/** Whether an error says that a key is needed. */
export function wantsKey(error: unknown): boolean {
  return error instanceof CallError && error.code === "unauthenticated";
}

let here: string | undefined; // where a browser keeps nothing

function keptKey(): string | undefined {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? undefined;
  } catch {
    return here;
  }
}

/** Keep a key until the tab is closed. */
function keep(key: string | undefined): void {
  here = key;
  try {
    if (key === undefined) sessionStorage.removeItem(KEPT_AS);
    else sessionStorage.setItem(KEPT_AS, key);
  } catch {
    // `here` has it
  }
}

/** Ask; undefined is what a user says with Escape. */
function promptFor(why: string): Promise<string | undefined> {
  const box = h("input", { type: "password", id: "key", autocomplete: "off", required: true, spellcheck: "false" });
  const words = h("p", { role: "alert" }, why);
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "key-title" }, "This server wants a key"),
    words,
    h("label", { for: "key" }, "API key"),
    box,
    h("p", { class: "hint" }, "It is kept in this tab until that is closed, and sent to this server only."),
    h("button", { class: "main", type: "submit" }, "Use it"),
  );
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
