// Shelf: the user's own templates in the form: which there are, the one that is chosen, and what is saved of the form.
//
// Rule: nothing is written over, or deleted, that is not as it was read, and nothing without a question.
import { attribute, h, hidden, text } from "../../src/dom";
import type { Template, TemplateItem, TemplateList } from "../../src/wire";
import { part, Refused, words, type Api } from "./api";
import { option } from "./field";
import { overwrite, standing } from "./overwrite";
import { alike } from "./own";

/** What the form does for it. */
export interface Form {
  sure(title: string, body: string, label: string): Promise<boolean>;
  /** The name that a new one is to have. */
  name(): string;
  /** What stands in the form; throws a sentence where that is nothing. */
  template(): Template;
  /** They are others now: choose one; "" for one that is shipped. */
  changed(name: string): Promise<void>;
}

export function pathOf(template: string): string {
  return `/templates/${part(template)}`;
}

/** Why one cannot be submitted; "" where it can. */
export function whyNot({ error, reason }: TemplateItem): string {
  return error || reason;
}

export class Shelf {
  private readonly change = button("Save changes", "", () => this.keep(this.chosen!.name, { "If-Match": this.chosen!.etag }));
  private readonly add = button("Save as template", "", () => this.keep(this.form.name(), { "If-None-Match": "*" }));
  private readonly drop = button("Delete template", "cancel", () => this.remove(this.chosen!.name));
  private readonly said = h("p", "said-of");
  private items: TemplateItem[] = [];
  private asked = 0;
  private chosen: { name: string; template: Template; etag: string } | null = null;
  readonly buttons = h("div", "kept", this.change, this.add, this.drop);
  readonly node = this.said;

  constructor(private readonly api: Api, private readonly form: Form) {
    this.said.setAttribute("role", "status");
    this.patch();
  }

  /** See which there are. Returns what keeps that from being known, in words. */
  async list(): Promise<string> {
    try {
      const { items } = await this.api.get<TemplateList>("/templates");
      this.items = items.filter(({ kind }) => kind === "own");
      return "";
    } catch (error) {
      return `Your templates cannot be listed: ${words(error)}`;
    }
  }

  /** Take which there are now, as others tell it; returns whether they are others. */
  heard(items: TemplateItem[]): boolean {
    if (alike(items, this.items)) return false;
    this.items = items;
    return true;
  }

  /** What can be chosen, and what cannot, with the reason; null for none. */
  options(): HTMLOptGroupElement | null {
    if (!this.items.length) return null;
    const group = Object.assign(h("optgroup"), { label: "Your templates" });
    for (const item of this.items) {
      const { name, description, error, reason } = item;
      const about = error || description;
      const one = option(name, reason ? `${name} ${reason}` : about ? `${name}: ${about}` : name);
      one.disabled = !item.can.includes("submit");
      group.append(one);
    }
    return group;
  }

  find(name: string): TemplateItem | undefined {
    return this.items.find((one) => one.name === name);
  }

  /** Choose one, and read what it says; null where it is none of these. Throws where it cannot be read. */
  async choose(name: string): Promise<Template | null> {
    const asked = (this.asked += 1);
    this.chosen = null;
    this.patch();
    if (!this.find(name)) return null;
    const { value, etag } = await this.api.tagged<Template>(pathOf(name));
    if (asked === this.asked) this.chosen = { name, template: value, etag };
    return value;
  }

  /** Whether the one that is chosen still is as it was read; a browser's tab or Python may have changed it. */
  async isAsRead(): Promise<boolean> {
    const { chosen } = this;
    if (!chosen) return true;
    try {
      return (await this.api.tagged(pathOf(chosen.name))).etag === chosen.etag;
    } catch (error) {
      if (error instanceof Refused && [404, 422].includes(error.status)) return false;
      throw error;
    }
  }

  /** Offer what makes sense of what stands in the form now. */
  patch(): void {
    const { chosen } = this;
    text(this.said, "");
    hidden(this.change, !chosen);
    hidden(this.drop, !chosen);
    text(this.add, chosen ? "Save as new" : "Save as template");
    if (!chosen) return;
    attribute(this.change, "title", `Save what stands here as ${chosen.name}`);
    attribute(this.drop, "title", `Delete ${chosen.name}`);
    try {
      this.change.disabled = alike(this.form.template(), chosen.template);
    } catch {
      this.change.disabled = true;
    }
  }

  private async keep(name: string, condition: Record<string, string>): Promise<void> {
    if (!name) return this.say("The template needs a name: it is that of the batch, above.", true);
    const ask = (now: Template | null): Promise<boolean> =>
      now
        ? this.form.sure(`Replace template ${name}?`, "It is there, and says something else. What stands here takes its place.", "Replace")
        : this.form.sure(`Save template ${name}?`, "It was deleted, or cannot be read any more. What stands here takes its place.", "Save");
    await this.act(async () => {
      const made = this.form.template();
      const kept = await overwrite<Template>(this.api, pathOf(name), () => made, condition, ask);
      if (kept === null) return;
      await this.list();
      await this.form.changed(name);
      this.say(`Saved: ${name} is among your templates.`);
    });
  }

  private async remove(name: string): Promise<void> {
    await this.act(async () => {
      const { condition } = await standing(this.api, pathOf(name));
      if (!(await this.form.sure(`Delete template ${name}?`, LOST, "Delete"))) return;
      await this.api.delete(pathOf(name), condition);
      await this.list();
      await this.form.changed("");
      this.say(`Deleted: ${name}.`);
    });
  }

  private async act(what: () => Promise<void>): Promise<void> {
    try {
      await what();
    } catch (error) {
      this.say(words(error), true);
    }
  }

  private say(told: string, isWrong = false): void {
    text(this.said, told);
    attribute(this.said, "data-wrong", isWrong ? "" : null);
  }
}

/** What is lost with a template. */
export const LOST = "What was submitted by it stays. A schedule that names it submits nothing more.";

/** A button that is pressed once at a time. */
function button(label: string, name: string, press: () => Promise<void>): HTMLButtonElement {
  const node = h("button", name, label);
  node.type = "button";
  node.addEventListener("click", () => {
    if (node.getAttribute("aria-busy")) return;
    attribute(node, "aria-busy", "true");
    void press().finally(() => attribute(node, "aria-busy", null));
  });
  return node;
}
