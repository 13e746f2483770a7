/** Parts that views share. */

import { h } from "./dom.js";
import type { Child } from "./dom.js";
import type { RunPanel } from "./run_panel.js";

/** Return the head of a view. */
export function heading(name: string, kind: string, description: string, ...more: readonly Child[]): HTMLElement {
  const words = description === "" ? [] : [h("p", { class: "description" }, description)];
  return h("header", { class: "head" }, h("h1", { tabindex: -1 }, name), h("p", { class: "kind" }, kind, ...spaced(more)), ...words);
}

/** Return a form that starts a call; Ctrl and Enter do so from any of its fields. */
export function submits(panel: RunPanel, ...children: readonly Child[]): HTMLFormElement {
  const start = (event: Event): void => {
    event.preventDefault();
    void panel.start();
  };
  const key = (event: Event): void => {
    if (event instanceof KeyboardEvent && event.key === "Enter" && (event.ctrlKey || event.metaKey)) start(event);
  };
  return h("form", { novalidate: true, submit: start, keydown: key }, ...children);
}

function spaced(children: readonly Child[]): Child[] {
  return children.flatMap((child) => [" · ", child]);
}
