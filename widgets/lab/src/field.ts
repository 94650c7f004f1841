// Field: a control with its label above and a hint below.
import { attribute, h, hidden, ownId, text } from "../../src/dom";

type Control = HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;

export class Field<C extends Control> {
  private readonly hint = h("small", "hint");
  private readonly name: HTMLLabelElement;
  readonly node: HTMLElement;

  constructor(readonly control: C, label: string, hint = "") {
    control.id = ownId("field");
    this.hint.id = ownId("hint");
    control.setAttribute("aria-describedby", this.hint.id);
    this.name = h("label", "", label);
    this.name.htmlFor = control.id;
    this.node = h("div", "ask", this.name, control, this.hint);
    this.say(hint);
  }

  say(hint: string, isWrong = false): void {
    text(this.hint, hint);
    attribute(this.hint, "data-wrong", isWrong ? "" : null);
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
