// Details: the items of one group, or the whole error of one item, in a drawer of fixed height under the table.
//
// Rule: the items are those of the last whole answer. While another is fetched, page by page, they stay as they are.
import { said, statusSign, took } from "./columns";
import { copy } from "./csv";
import { attribute, focusable, h, hidden, text } from "./dom";
import { count, duration } from "./format";
import { icon } from "./icons";
import type { Context } from "./piece";
import type { Group, Item, RecordedItem } from "./schema";
import { shownStatus, type ShownStatus } from "./selection";
import type { Detail } from "./store";

/** As many as the kernel sends at once. */
const PAGE = 100;
const AGAIN_S = 1;
/** Characters of an error that are shown at once, alone and among others; a few more are shown as well. */
const WHOLE = 800;
const WHY = 300;
const LITTLE = 80;
const NOTHING = {};
const READING = "Reading the journal\u2026";
const NO_ANSWER = "The items cannot be read: no kernel answers.";

export class Details {
  private readonly name = h("h3", "title");
  private readonly state = h("span", "sign");
  private readonly facts = h("span", "facts-of");
  private readonly error = new LongText("whole", WHOLE);
  private readonly where = h("ol", "where");
  private readonly tries = h("ol", "tries");
  private readonly note = h("p", "note");
  private readonly list = h("ul", "entries");
  private readonly more = h("button", "more");
  private readonly body = h("div", "entries-of", this.error.node, this.where, this.tries, this.list, this.note, this.more);
  private readonly sign = statusSign(this.state);
  private readonly entries: Entry[] = [];
  private wanted = PAGE;
  private shown: Detail | undefined;
  /** The last answer that was looked at: a page of many is not shown alone. */
  private seen: Detail | undefined;
  /** What is filled in beside the error. */
  private told: Partial<RecordedItem> = NOTHING;
  private asked = "";
  private askedAt_s = -Infinity;
  /** The number of the group that is open. */
  group: number | null = null;
  /** The item that is open, with all that is known of it. */
  item: Item | RecordedItem | null = null;
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
    fillStory(this.where, this.tries, NOTHING);
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

  openItem(item: Item | RecordedItem): void {
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
    const items = group.items === 1 ? [] : [`${count(group.done)} of ${count(group.items)} items`];
    this.patchHead(group.name, shownStatus(group), [...items, ...extras].join(", "));
    // Where a group ended with an error of its own, no item may tell it.
    this.error.patch(this.shown?.items.some((item) => item.error === group.error) ? "" : group.error);
    if (this.told !== NOTHING) fillStory(this.where, this.tries, (this.told = NOTHING));
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

  private patchItem(item: Omit<Item, "group"> & Partial<RecordedItem>): void {
    const attempts = item.attempts === 1 ? "1 attempt" : `${count(item.attempts)} attempts`;
    this.patchHead(item.key, item.status, `${attempts}, ${took(item)}`);
    if (this.told !== item) fillStory(this.where, this.tries, (this.told = item));
    this.error.patch(item.error);
    this.patchEntries([]);
    hidden(this.more, true);
    text(this.note, "No error.");
    hidden(this.note, item.error !== "");
  }

  private patchHead(name: string, status: ShownStatus, facts: string): void {
    text(this.name, name);
    this.sign(status);
    text(this.facts, facts);
    attribute(this.body, "aria-label", `Details of ${name}`);
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
  private readonly error = new LongText("why", WHY);
  private readonly tries = h("ol", "tries");
  private readonly where = h("ol", "where"); // in the user's own code
  private readonly sign = statusSign(this.state);
  private item: RecordedItem | null = null;
  readonly node = h("li", "entry", this.state, this.key, this.attempts, this.time, this.error.node, this.where, this.tries);

  patch(item: RecordedItem): void {
    if (item === this.item) return;
    this.item = item;
    this.sign(item.status);
    text(this.key, item.key);
    attribute(this.key, "title", item.key);
    text(this.attempts, item.attempts === 1 ? "1 attempt" : `${count(item.attempts)} attempts`);
    text(this.time, took(item));
    this.error.patch(item.error);
    fillStory(this.where, this.tries, item);
  }
}

/** Fill in where in the user's own code it failed, and the attempts before the last. */
function fillStory(where: HTMLElement, tries: HTMLElement, { traceback = "", tries: earlier = [] }: Partial<RecordedItem>): void {
  const places = traceback === "" ? [] : traceback.split("\n");
  // Frames of libraries are told by their number.
  where.replaceChildren(...places.map((place) => h("li", /^then \d/.test(place) ? "folded" : "", place)));
  hidden(where, places.length === 0);
  const lines = earlier.map(({ attempt, error, seconds }) => `attempt ${count(attempt)}: ${error} (${duration(seconds)})`);
  tries.replaceChildren(...lines.map((line) => h("li", "", line)));
  hidden(tries, lines.length === 0);
}

/** Text that may be long: its beginning, how much more there is, and the rest when it is asked for. */
class LongText {
  private readonly words = h("span", "words");
  private readonly much = h("span");
  private readonly all = h("button", "quiet", "Show all");
  private readonly take = h("button", "quiet", "Copy");
  private readonly cut = h("span", "cut", this.much, this.all, this.take);
  private value: string | null = null;
  readonly node: HTMLElement;

  constructor(name: string, private readonly most: number) {
    this.node = h("div", name, this.words);
    this.all.type = this.take.type = "button";
    this.all.addEventListener("click", () => this.show(true));
    this.take.addEventListener("click", async () => text(this.take, (await copy(this.value ?? "")) ? "Copied" : "Not copied"));
    this.patch("");
  }

  patch(value: string): void {
    if (value === this.value) return;
    this.value = value;
    hidden(this.node, value === "");
    text(this.take, "Copy");
    this.show(value.length <= this.most + LITTLE);
  }

  private show(whole: boolean): void {
    const value = this.value ?? "";
    const focused = this.all.matches(":focus");
    text(this.words, whole ? value : value.slice(0, this.most).replace(/[\uD800-\uDBFF]$/, ""));
    text(this.much, whole ? "" : `\u2026 ${count(value.length - this.most)} characters more`);
    hidden(this.all, whole);
    if (value.length <= this.most + LITTLE) this.cut.remove();
    else this.node.append(this.cut);
    if (focused && whole) this.take.focus({ preventScroll: true });
  }
}
