// Details: the items of one group, or the whole error of one item, in a drawer of fixed height under the table.
//
// Rule: the items are those of the last whole answer. While another is fetched, page by page, they stay as they are.
import { said, statusSign, took } from "./columns";
import { attribute, focusable, h, hidden, text } from "./dom";
import { count, duration } from "./format";
import { icon } from "./icons";
import type { Context } from "./piece";
import type { Group, Item, RecordedItem, Status } from "./schema";
import type { Detail } from "./store";

/** As many as the kernel sends at once. */
const PAGE = 100;
const AGAIN_S = 1;
const READING = "Reading the journal\u2026";
const NO_ANSWER = "The items cannot be read: no kernel answers.";

export class Details {
  private readonly name = h("h4", "title");
  private readonly state = h("span", "sign");
  private readonly facts = h("span", "facts-of");
  private readonly error = h("p", "whole");
  private readonly note = h("p", "note");
  private readonly list = h("ul", "entries");
  private readonly more = h("button", "more");
  private readonly body = h("div", "entries-of", this.error, this.list, this.note, this.more);
  private readonly sign = statusSign(this.state);
  private readonly entries: Entry[] = [];
  private wanted = PAGE;
  private shown: Detail | undefined;
  /** The last answer that was looked at: a page of many is not shown alone. */
  private seen: Detail | undefined;
  private asked = "";
  private askedAt_s = -Infinity;
  /** The number of the group that is open. */
  group: number | null = null;
  item: Item | null = null;
  readonly node: HTMLElement;

  constructor(private readonly context: Context, close: () => void) {
    const button = h("button", "close", icon("close"));
    button.type = this.more.type = "button";
    button.title = "Close";
    button.setAttribute("aria-label", "Close the details");
    button.addEventListener("click", close);
    this.more.addEventListener("click", () => this.showMore());
    this.node = h("section", "details", h("div", "details-head", this.name, this.state, this.facts, button), this.body);
    this.node.hidden = true;
    focusable(this.body);
    for (const [name, value] of [["role", "region"], ["aria-label", "Details"]]) this.body.setAttribute(name!, value!);
  }

  get isOpen(): boolean {
    return this.group !== null || this.item !== null;
  }

  openGroup(number: number): void {
    this.close();
    this.group = number;
    // What was read before is shown until it is read anew.
    this.shown = this.seen = this.context.store.details.get(number);
    this.open();
  }

  openItem(item: Item): void {
    this.close();
    this.item = item;
    this.open();
  }

  close(): void {
    this.group = this.item = null;
    this.shown = this.seen = undefined;
    this.wanted = PAGE;
    this.asked = "";
    this.askedAt_s = -Infinity;
    hidden(this.node, true);
  }

  private open(): void {
    attribute(this.node, "data-is", this.item ? "item" : null);
    hidden(this.node, false);
    this.body.scrollTop = 0;
  }

  patch(now_s: number): void {
    const group = this.context.store.groups.get(this.group ?? NaN);
    if (group) this.patchGroup(group, now_s);
    else if (this.item) this.patchItem(this.item);
    else this.close();
  }

  private patchGroup(group: Group, now_s: number): void {
    this.ask(group, now_s);
    const { columns } = this.context.store;
    const extras = columns
      .filter((title) => (group.extra[title] ?? "") !== "")
      .map((title) => `${title} ${said(group.extra[title]!, now_s)}`);
    this.patchHead(group.name, group.status, [`${count(group.done)} of ${count(group.items)} items`, ...extras].join(", "));
    // Where a group ended with an error of its own, no item may tell it.
    this.patchError(this.shown?.items.some((item) => item.error === group.error) ? "" : group.error);
    this.patchEntries(this.shown?.items ?? []);
    const left = this.shown ? this.shown.total - this.shown.items.length : 0;
    hidden(this.more, left <= 0);
    text(this.more, `Show ${count(Math.min(left, PAGE))} more of ${count(left)}`);
    this.patchNote();
  }

  private patchNote(): void {
    const words = this.context.isPending("items") ? READING : NO_ANSWER;
    text(this.note, !this.shown ? words : this.shown.total ? "" : "No item has ended yet.");
    hidden(this.note, this.note.textContent === "");
  }

  private patchItem(item: Item): void {
    const attempts = item.attempts === 1 ? "1 attempt" : `${count(item.attempts)} attempts`;
    this.patchHead(item.key, item.status, `${attempts}, ${took(item)}`);
    this.patchError(item.error);
    this.patchEntries([]);
    hidden(this.more, true);
    text(this.note, "No error.");
    hidden(this.note, item.error !== "");
  }

  private patchHead(name: string, status: Status, facts: string): void {
    text(this.name, name);
    this.sign(status);
    text(this.facts, facts);
    attribute(this.body, "aria-label", `Details of ${name}`);
  }

  private patchError(error: string): void {
    text(this.error, error);
    hidden(this.error, error === "");
  }

  private patchEntries(items: RecordedItem[]): void {
    while (this.entries.length > items.length) this.entries.pop()!.node.remove();
    while (this.entries.length < items.length) {
      const entry = new Entry();
      this.entries.push(entry);
      this.list.append(entry.node);
    }
    items.forEach((item, index) => this.entries[index]!.patch(item));
    hidden(this.list, items.length === 0);
  }

  /** Ask for what has ended since, and for the rest of an answer of many pages. */
  private ask({ number, status, done, failed }: Group, now_s: number): void {
    const answer = this.context.store.details.get(number);
    if (answer && answer !== this.seen) {
      this.seen = answer;
      const missing = answer.items.length < Math.min(this.wanted, answer.total);
      if (missing && answer.items.length) this.context.press("items", number, answer.items.length);
      else this.shown = answer;
    }
    const state = `${status}/${done}/${failed}`;
    if (state === this.asked || now_s - this.askedAt_s < AGAIN_S) return;
    this.asked = state;
    this.askedAt_s = now_s;
    this.context.press("items", number, 0);
  }

  private showMore(): void {
    if (this.group === null || !this.shown) return;
    this.wanted = this.shown.items.length + PAGE;
    this.context.press("items", this.group, this.shown.items.length);
    // It is about to move away, or to vanish.
    this.body.focus({ preventScroll: true });
  }
}

/** An item that ended, with the attempts before its last. */
class Entry {
  private readonly key = h("span", "subject");
  private readonly state = h("span", "sign");
  private readonly attempts = h("span", "tried");
  private readonly time = h("span", "took");
  private readonly error = h("span", "why");
  private readonly tries = h("ol", "tries");
  private readonly where = h("ol", "where"); // in the user's own code
  private readonly sign = statusSign(this.state);
  private item: RecordedItem | null = null;
  readonly node = h("li", "entry", this.state, this.key, this.attempts, this.time, this.error, this.where, this.tries);

  patch(item: RecordedItem): void {
    if (item === this.item) return;
    this.item = item;
    this.sign(item.status);
    text(this.key, item.key);
    attribute(this.key, "title", item.key);
    text(this.attempts, item.attempts === 1 ? "1 attempt" : `${count(item.attempts)} attempts`);
    text(this.time, took(item));
    text(this.error, item.error);
    const places = item.traceback === "" ? [] : item.traceback.split("\n");
    hidden(this.where, places.length === 0);
    this.where.replaceChildren(...places.map((place) => h("li", "", place)));
    hidden(this.tries, item.tries.length === 0);
    const lines = item.tries.map(({ attempt, error, seconds }) => `attempt ${count(attempt)}: ${error} (${duration(seconds)})`);
    this.tries.replaceChildren(...lines.map((line) => h("li", "", line)));
  }
}
