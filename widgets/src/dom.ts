// Dom: nodes are made once and patched; text goes in as text, whatever it contains.

type Child = Node | string;

/** Lumino looks for it on the focused node itself, and without it would take each key there for the notebook's. */
export const KEEPS_KEYS = "data-lm-suppress-shortcuts";
const CONTROLS = new Set(["a", "button", "input", "select", "summary", "textarea"]);

/** Make an element. Its classes get a prefix: pages of notebooks have rules of their own for `progress` or `row`. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) node.className = prefixed(className);
  if (CONTROLS.has(tag)) node.setAttribute(KEEPS_KEYS, "true");
  node.append(...children);
  return node;
}

/** Let the keyboard reach a node: 0 by Tab, -1 by the panel's own hand, null not at all. Its keys stay in the panel. */
export function focusable(node: Element, index: 0 | -1 | null = 0): void {
  attribute(node, "tabindex", index === null ? null : String(index));
  attribute(node, KEEPS_KEYS, index === null ? null : "true");
}

export function prefixed(names: string): string {
  return names.replace(/\S+/g, "ib-$&");
}

const SVG = "http://www.w3.org/2000/svg";

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Record<string, string>,
  ...children: SVGElement[]
): SVGElementTagNameMap[K] {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An id that no other view of the page has: each widget runs a copy of this file of its own. */
export function ownId(name: string): string {
  return `${prefixed(name)}-${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
}

// The setters compare first: writing what is there already still costs the browser a layout.

export function text(node: Element, value: string): void {
  if (node.textContent !== value) node.textContent = value;
}

export function attribute(node: Element, name: string, value: string | null): void {
  if (node.getAttribute(name) === value) return;
  if (value === null) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

/** Show `value` cut to the space there is, and whole in the tooltip. */
export function clipped(node: Element, value: string): void {
  text(node, value);
  attribute(node, "title", value || null);
}

export function hidden(node: HTMLElement, yes: boolean): void {
  if (node.hidden !== yes) node.hidden = yes;
}

export function width(node: HTMLElement, share: number): void {
  const value = `${Math.round(Math.max(0, Math.min(1, share)) * 1e4) / 100}%`;
  if (node.style.width !== value) node.style.width = value;
}
