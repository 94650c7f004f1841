// Queued: a submission that waits, in two lines: what it is, what it waits for, and Cancel.
import { attribute, clipped, h, text } from "../../src/dom";
import { count } from "../../src/format";
import { icon } from "../../src/icons";
import type { Submission } from "../../src/wire";
import { titleOf } from "./draft";
import type { Hooks } from "./hooks";
import { wholeTime, whenWords } from "./told";
import { title, tool } from "./tool";

/** As `Listed` takes it. */
export interface Waiting {
  item: Submission;
}

export class Queued {
  private readonly name = h("span", "subject");
  private readonly what = h("span", "of");
  private readonly waits = h("span", "left");
  private readonly cancel: HTMLButtonElement;
  private item: Submission | null = null;
  readonly node: HTMLElement;

  constructor(hooks: Hooks, private readonly saidOf: (id: string) => string) {
    this.cancel = tool("cancel", "", () => this.item && hooks.withdraw(this.item));
    this.name.dir = "auto";
    this.node = h(
      "li",
      "in-queue",
      h("div", "line", h("span", "open", icon("planned"), this.name), h("div", "tools", this.cancel)),
      h("div", "line", this.what, this.waits),
    );
  }

  patch({ item }: Waiting): void {
    this.item = item;
    const said = this.saidOf(item.id);
    clipped(this.name, item.name);
    clipped(this.what, said || `${titleOf(item.template)}, ${count(item.request_count)}`);
    text(this.waits, said ? "" : waitWords(item));
    attribute(this.waits, "title", item.start_at ? `Begins ${wholeTime(item.start_at)}` : null);
    title(this.cancel, `Cancel ${item.name}`);
    attribute(this.cancel, "aria-busy", said ? "true" : null);
  }
}

/** `waits for 1 other`, `begins at 14:03`, `begins in a moment`. */
export function waitWords({ start_at, waits_for }: Submission, now = new Date()): string {
  if (start_at && new Date(start_at) > now) {
    const when = whenWords(start_at, now);
    return `begins ${when.includes(":") ? "at" : "on"} ${when}`;
  }
  if (!waits_for) return "begins in a moment";
  return `waits for ${count(waits_for)} ${waits_for === 1 ? "other" : "others"}`;
}
