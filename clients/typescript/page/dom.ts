/** Elements, made without a word of HTML: nothing a server says can become one. */

export type Child = Node | string;
type Attribute = string | number | boolean | undefined | ((event: Event) => void);

/** Make an element; functions among its attributes are listeners, false and undefined ones are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, Attribute>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/** Make an element of a drawing. */
export function svg(tag: string, attributes: Readonly<Record<string, string | number>> = {}): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/** Return the element of this id, which the page has. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

let made = 0;

/** Return an id that no other element has. */
export function newId(): string {
  made += 1;
  return `made-${made}`;
}

/** Have those who hear the page told, once they have heard what came before. */
export function announce(text: string): void {
  byId("told").textContent = text;
}

/** Show an element, or do not. */
export function show(element: HTMLElement, shown: boolean): void {
  element.hidden = !shown;
}
