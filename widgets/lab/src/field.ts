// Field: a control with its label above and a hint below.
import { attribute, h, hidden, ownId, text } from "../../src/dom";

type Control = HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;

export class Field<C extends Control> {
  private readonly said = h("small", "hint");
  private readonly name: HTMLLabelElement;
  readonly node: HTMLElement;

  constructor(readonly control: C, label: string, readonly hint = "") {
    control.id = ownId("field");
    this.said.id = ownId("hint");
    control.setAttribute("aria-describedby", this.said.id);
    this.name = h("label", "", label);
    this.name.htmlFor = control.id;
    this.node = h("div", "ask", this.name, control, this.said);
    this.say(hint);
  }

  say(hint: string, isWrong = false): void {
    text(this.said, hint);
    attribute(this.said, "data-wrong", isWrong ? "" : null);
    attribute(this.control, "aria-invalid", isWrong ? "true" : null);
  }

  rename(label: string): void {
    text(this.name, label);
  }

  show(yes: boolean): void {
    hidden(this.node, !yes);
  }
}

/** What can be chosen, as values and labels. */
export function choice(options: [string, string][]): HTMLSelectElement {
  return h("select", "", ...options.map(([value, label]) => option(value, label)));
}

export function option(value: string, label: string): HTMLOptionElement {
  return Object.assign(h("option", "", label), { value });
}

export function entry(type: string, placeholder = ""): HTMLInputElement {
  return Object.assign(h("input"), { type, placeholder, autocomplete: "off", spellcheck: false });
}
