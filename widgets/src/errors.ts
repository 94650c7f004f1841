// Errors: a tab that lists what failed, from the journal: by message, searched there, page by page as it is looked at.
//
//   what is in sight --errors/<offset>/<search>/<limit>/<version>--> kernel or server --Errors--> list --> table
//
// While the session runs, more may fail. A list that is under the pointer or the keyboard stays as it is, and says
// how many have failed since; any other is read anew, rarely enough that reading costs no more than a tenth of a core.
import { statusSign, took } from "./columns";
import { csv, download, errorLines, fileName } from "./csv";
import { Details } from "./details";
import { attribute, clipped, h, hidden, text } from "./dom";
import { ErrorList, nameOf, PAGE, type ItemLine, type Line } from "./errorlist";
import { count } from "./format";
import { icon, setIcon } from "./icons";
import type { Context, Piece } from "./piece";
import type { Errors, Head, RecordedItem } from "./schema";
import { ended } from "./store";
import { Table, type Column } from "./table";

const ROWS = 10;
/** Room for so many lines is kept while messages are closed. */
const LEAST = 6;
const EVERY_S = 2;
const REST = 10;
const TYPED_MS = 250;
const AGAIN_S = 5; // an answer may have been lost
const FILE_PAGE = 2000;

export class ErrorsPiece implements Piece {
  private readonly list = new ErrorList();
  private readonly tools = new ErrorTools();
  private readonly table: Table<Line>;
  private readonly details: Details;
  private readonly asking = new Map<number, number>();
  private file: RecordedItem[] | null = null;
  private search = "";
  private askedAt_s = -Infinity;
  private took_s = 0;
  /** What the counts were when the list was asked for. */
  private asked = "";
  private typing: ReturnType<typeof setTimeout> | undefined;
  readonly node: HTMLElement;

  constructor(private readonly context: Context) {
    this.details = new Details(context, () => this.closeDetails());
    this.table = new Table<Line>(errorColumns(), "of-errors", {
      opened: (line) => this.open(line),
      scrolled: () => this.fetch(performance.now() / 1000),
      isOpen: (line) => line.kind === "item" && line.item !== undefined && line.item.key === this.details.item?.key,
    });
    this.table.node.setAttribute("role", "treegrid"); // only its rows may be expanded
    const { input, retry, take, news } = this.tools;
    input.addEventListener("input", () => this.typed());
    retry.addEventListener("click", () => this.retry());
    take.addEventListener("click", () => this.takeFile());
    news.addEventListener("click", () => this.begin());
    this.node = h("div", "lists", this.tools.node, this.table.node, this.details.node);
    this.node.addEventListener("keydown", (event) => this.keyed(event));
    this.context.store.onErrors.add((errors) => this.hear(errors));
  }

  render(now_s: number): void {
    const head = this.context.store.head!;
    if (this.details.isOpen) this.details.patch(now_s);
    this.lookAgain(head, now_s);
    attribute(this.table.node, "aria-label", `Errors of ${head.name}`);
    const room = Math.min(ROWS, Math.max(this.list.length, Math.min(LEAST, this.list.isKnown ? this.list.most : failed(head)), 1));
    this.table.show(this.list, room, -1, this.words(head));
    this.fetch(now_s);
    this.patchTools(head);
  }

  private words(head: Head): string {
    if (!this.list.isKnown) return this.context.gone() ? "The errors cannot be read: nobody answers." : "Reading the journal\u2026";
    if (this.list.of || !failed(head)) return this.list.of ? "No error matches." : "Nothing has failed.";
    if (head.state === "rolled_back") return "Rolled back: what failed is not on record. The log tells of it.";
    return ended(head.state) ? "What failed is on record no more." : "What failed is not on record yet.";
  }

  private patchTools(head: Head): void {
    const { list } = this;
    const more = failed(head) - list.of;
    const gone = this.context.gone() !== null;
    const canRetry = !gone && head.can.includes("retry_failed") && (!this.search || !this.context.retriesAll);
    const isStale = this.isStale();
    const isNew = list.isKnown && more > 0 && this.figures(head) !== this.asked;
    const words = list.messages === 1 ? "1 message" : `${count(list.messages)} messages`;
    this.tools.tell({
      shown: !list.isKnown ? "" : this.search ? `${count(list.total)} of ${count(list.of)}` : words,
      news: isNew ? `${count(more)} more: show` : "",
      retry: canRetry && list.total > 0 ? this.retryWords() : "",
      take: this.file ? `${count(this.file.length)} of ${count(list.total)}\u2026` : "CSV",
      isBusy: this.file !== null || isStale || this.context.isPending("retry_failed"),
      isEmpty: gone || list.total === 0,
    });
  }

  private retryWords(): string {
    return this.search ? `Retry these ${count(this.list.total)}` : `Retry all ${count(this.list.total)}`;
  }

  private figures({ state, counts, started_s }: Head): string {
    return `${ended(state)} ${started_s} ${counts.failed} ${counts.timeout}`;
  }

  /** Read it anew when there is news, unless somebody is at it. */
  private lookAgain(head: Head, now_s: number): void {
    const isDue = now_s - this.askedAt_s >= Math.max(EVERY_S, REST * this.took_s);
    if (this.isStale()) {
      if (now_s - this.askedAt_s >= AGAIN_S) this.begin();
    } else if (this.file) {
      const next = this.file.length;
      if (now_s - (this.asking.get(next) ?? -Infinity) >= AGAIN_S) this.ask(next, FILE_PAGE, this.list.version);
    } else if (now_s - (this.asking.get(0) ?? Infinity) >= AGAIN_S) this.begin();
    else if (isDue && this.figures(head) !== this.asked && !this.isHeld()) this.begin();
  }

  /** Whether the list is not yet that of the search. */
  private isStale(): boolean {
    return !this.list.isKnown || this.list.search !== this.search;
  }

  private isHeld(): boolean {
    return this.details.isOpen || this.node.matches(":hover") || this.node.contains(document.activeElement);
  }

  private begin(): void {
    this.askedAt_s = performance.now() / 1000;
    this.asked = this.figures(this.context.store.head!);
    this.asking.clear();
    this.ask(0, PAGE, 0);
  }

  private ask(offset: number, limit: number, version: number): void {
    this.asking.set(offset, performance.now() / 1000);
    this.context.press("errors", offset, encodeURIComponent(this.search), limit, version);
  }

  /** Ask for the pages of what is in sight. */
  private fetch(now_s: number): void {
    if (this.isStale() || this.asking.has(0)) return;
    for (const line of this.table.inSight()) {
      const page = line.kind === "item" ? this.list.missing(line.at) : null;
      if (page === null || now_s - (this.asking.get(page) ?? -Infinity) < AGAIN_S) continue;
      this.ask(page, PAGE, this.list.version);
    }
  }

  private hear(errors: Errors): void {
    if (errors.search !== this.search || !this.asking.has(errors.offset)) return;
    if (errors.offset === 0 && errors.version !== this.list.version) this.took_s = performance.now() / 1000 - this.askedAt_s;
    this.asking.delete(errors.offset);
    if (!this.list.take(errors)) {
      this.file = null;
      this.begin(); // the kernel knows that list no more
    } else if (this.file) this.collect(errors);
    this.context.redraw();
  }

  private typed(): void {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      const search = this.tools.input.value.trim();
      if (search === this.search) return;
      this.search = search;
      this.begin();
      this.context.redraw();
    }, TYPED_MS);
  }

  private retry(): void {
    if (this.isStale()) return; // its button tells of another search
    this.context.press("retry_failed", ...(this.search ? [encodeURIComponent(this.search)] : []));
    this.context.redraw();
  }

  /** Fetch all that match, whether it was looked at or not. */
  private takeFile(): void {
    if (this.file || this.isStale() || !this.list.total) return;
    this.file = [];
    this.ask(0, FILE_PAGE, this.list.version);
    this.context.redraw();
  }

  private collect({ offset, items }: Errors): void {
    const file = this.file!;
    if (offset !== file.length) return; // a page for the table
    file.push(...items);
    if (file.length < this.list.total && items.length) return this.ask(file.length, FILE_PAGE, this.list.version);
    this.file = null;
    download(fileName(`${this.context.store.head!.name} errors`), csv(errorLines(file)));
  }

  private open(line: Line): void {
    if (line.kind === "message") this.turn(nameOf(line.group));
    else if (line.item && line.item.key === this.details.item?.key) this.details.close();
    else if (line.item) this.details.openItem(line.item);
    this.context.redraw();
    if (line.kind === "item" && this.details.isOpen) this.details.node.scrollIntoView?.({ block: "nearest" });
  }

  private turn(name: string, open?: boolean): void {
    const line = this.list.turn(name, open);
    this.render(performance.now() / 1000);
    if (this.table.hasFocus()) this.table.focus(line);
  }

  private closeDetails(): void {
    const key = this.details.item?.key;
    this.details.close();
    this.render(performance.now() / 1000);
    this.table.focus(this.list.lineWith(key));
  }

  /** Left and Right close and open a message, as in every tree; Escape closes the details, then takes the search back. */
  private keyed(event: KeyboardEvent): void {
    if (event.key === "Escape") {
      const isTyped = this.tools.input.value !== "";
      if (event.target !== this.tools.input && this.details.isOpen) this.closeDetails();
      else if (event.target === this.tools.input && isTyped) {
        this.tools.input.value = "";
        this.typed();
      } else return;
    } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && this.table.hasFocus()) {
      const line = this.table.active;
      const head = this.list.at(this.list.headOf(line));
      if (head?.kind !== "message") return;
      if (event.key === "ArrowRight" && line === this.list.headOf(line)) this.turn(nameOf(head.group), true);
      else if (event.key === "ArrowLeft") this.turn(nameOf(head.group), false);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** What is done with the list: it is told how it stands, and hands on what is pressed. */
class ErrorTools {
  readonly input = h("input", "filter");
  readonly news = h("button", "news");
  readonly retry = h("button", "take retry_failed", icon("retry_failed"), h("span", "label"));
  readonly take = h("button", "take download", icon("download"), h("span", "label", "CSV"));
  private readonly shown = h("span", "aside");
  readonly node: HTMLElement;

  constructor() {
    Object.assign(this.input, { type: "search", placeholder: "Search", spellcheck: false, autocomplete: "off" });
    this.input.setAttribute("aria-label", "Search in keys and messages of all that failed");
    this.shown.setAttribute("role", "status");
    for (const button of [this.news, this.retry, this.take]) button.type = "button";
    this.take.title = "Download all that match as a CSV file";
    this.node = h("div", "toolbar of-errors", this.shown, this.news, this.input, h("div", "takes", this.retry, this.take));
  }

  tell(says: { shown: string; news: string; retry: string; take: string; isBusy: boolean; isEmpty: boolean }): void {
    text(this.shown, says.shown);
    text(this.news, says.news);
    hidden(this.news, says.news === "");
    text(this.retry.lastElementChild!, says.retry);
    attribute(this.retry, "title", says.retry ? `${says.retry} that failed` : null);
    hidden(this.retry, says.retry === "");
    text(this.take.lastElementChild!, says.take);
    // What is busy keeps the keyboard: a disabled button would lose it.
    for (const button of [this.retry, this.take]) attribute(button, "aria-busy", says.isBusy ? "true" : null);
    this.take.disabled = says.isEmpty;
  }
}

function failed({ counts }: Head): number {
  return counts.failed + counts.timeout;
}

function errorColumns(): Column<Line>[] {
  const words = (name: string, title: string, say: (item: RecordedItem) => string): Column<Line> => ({
    name,
    title,
    make: (cell) => (line) => clipped(cell, line.kind === "item" && line.item ? say(line.item) : ""),
  });
  return [
    { name: "status", title: "Status", make: signs },
    { name: "subject", title: "Item", make: subjects },
    words("attempts", "Attempts", (item) => count(item.attempts)),
    words("time", "Time", took),
    words("error", "Error", (item) => item.error),
  ];
}

/** A message has a chevron and how many it stands for; an item has its status. */
function signs(cell: HTMLElement): (line: Line) => void {
  const [fold, number, sign] = [icon("items"), h("b"), h("span", "sign")];
  const patch = statusSign(sign);
  cell.append(fold, number, sign);
  return (line) => {
    const row = cell.parentElement!;
    const message = line.kind === "message" ? line : null;
    attribute(row, "data-line", line.kind === "item" && line.within ? "within" : line.kind);
    attribute(row, "aria-level", line.kind === "item" && line.within ? "2" : "1");
    attribute(row, "aria-expanded", message ? String(message.open) : null);
    fold.style.display = message ? "" : "none";
    setIcon(fold, message?.open ? "descending" : "items");
    text(number, message ? `${count(message.group.count)}\u2009\u00d7` : "");
    const status = line.kind === "item" ? line.item?.status : undefined;
    hidden(sign, status === undefined);
    if (status) patch(status);
  };
}

function subjects(cell: HTMLElement): (line: Line) => void {
  const [words, aside] = [h("span", "words"), h("small")];
  cell.append(words, aside);
  return (line) => {
    clipped(words, line.kind === "message" ? line.group.message : keyWords(line));
    const scope = line.kind === "message" && line.group.scope !== "item" ? line.group.scope : "";
    text(aside, [line.kind === "message" && line.group.status === "timeout" ? "timed out" : "", scope].filter(Boolean).join(", "));
  };
}

function keyWords({ item }: ItemLine): string {
  return item ? item.key : "\u2026";
}
