// Template: one of the user's own, in two lines: what it is, or why it cannot be submitted; New batch, and Delete.
import { attribute, clipped, h, hidden, text } from "../../src/dom";
import { icon, setIcon } from "../../src/icons";
import type { TemplateItem } from "../../src/wire";
import { titleOf } from "./draft";
import type { Hooks } from "./hooks";
import { whyNot } from "./shelf";
import { title, tool } from "./tool";

/** As `Listed` takes it. */
export interface Kept {
  item: { id: string; template: TemplateItem };
}

export class TemplateRow {
  private readonly sign = icon("notebook");
  private readonly name = h("span", "subject");
  private readonly open = h("button", "open", this.sign, this.name);
  private readonly what = h("span", "of");
  private readonly drop: HTMLButtonElement;
  private template: TemplateItem | null = null;
  readonly node: HTMLElement;

  constructor(hooks: Hooks, private readonly saidOf: (id: string) => string) {
    const told = (act: (template: TemplateItem) => void) => () => this.template && act(this.template);
    this.drop = tool("cancel", "", told(({ name }) => hooks.discard(name)));
    this.open.type = "button";
    this.open.addEventListener("click", told(({ name }) => hooks.create(name)));
    this.name.dir = "auto";
    this.node = h("li", "in-queue", h("div", "line", this.open, h("div", "tools", this.drop)), h("div", "line", this.what));
  }

  patch({ item: { id, template } }: Kept): void {
    this.template = template;
    const { name, based_on, description, can, error, reason } = template;
    const why = whyNot(template);
    text(this.name, name);
    clipped(this.what, this.saidOf(id) || why || [titleOf(based_on), description].filter(Boolean).join(": "));
    attribute(this.what, "data-wrong", error ? "" : null);
    setIcon(this.sign, error ? "warn" : "notebook");
    this.open.disabled = !can.includes("submit");
    title(this.open, error ? `${name}: ${error}` : reason ? `${name} ${reason}` : `New batch by ${name}`);
    hidden(this.drop, !can.includes("edit"));
    title(this.drop, `Delete ${name}`);
  }
}
