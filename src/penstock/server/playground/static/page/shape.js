import { h } from "./dom.js";
export function heading(name, kind, description, ...more) {
    const words = description === "" ? [] : [h("p", { class: "description" }, description)];
    return h("header", { class: "head" }, h("h1", { tabindex: -1 }, name), h("p", { class: "kind" }, kind, ...spaced(more)), ...words);
}
export function submits(panel, ...children) {
    const start = (event) => {
        event.preventDefault();
        void panel.start();
    };
    const key = (event) => {
        if (event instanceof KeyboardEvent && event.key === "Enter" && (event.ctrlKey || event.metaKey))
            start(event);
    };
    return h("form", { novalidate: true, submit: start, keydown: key }, ...children);
}
function spaced(children) {
    return children.flatMap((child) => [" · ", child]);
}
