// Rows: the table of groups, or of the latest items where there are no groups; its tools above, its details below.
import { itemColumns } from "./columns";
import { copy, csv, download, fileName, groupLines, itemLines, tsv } from "./csv";
import { Details } from "./details";
import { attribute, h, hidden } from "./dom";
import { Groups } from "./groups";
import type { Context, Piece } from "./piece";
import type { Head, Item } from "./schema";
import { filters, matches, sorted } from "./selection";
import { ended, type Store } from "./store";
import { Table } from "./table";
import { Toolbar } from "./toolbar";

/** The table has room for these from the start, so nothing below it moves while it fills. */
const ROWS = 8;
/** A list in which every row is new ten times a second cannot be read. */
const ITEMS_EVERY_S = 1;
const ITEMS_WORDS = "Latest and failed items";
const NO_COUNTS = new Map<never, number>();

export class RowsPiece implements Piece {
  private readonly tools: Toolbar;
  private readonly details: Details;
  private readonly groups: Groups;
  private readonly items: Table<Item>;
  private listed: Item[] = [];
  private listedAt_s = -Infinity;
  private listedState = "";
  readonly node: HTMLElement;

  constructor(private readonly context: Context) {
    this.tools = new Toolbar({
      filtered: () => this.refresh(),
      copy: () => copy(tsv(this.lines())),
      download: () => download(fileName(context.store.head?.name ?? ""), csv(this.lines())),
    });
    this.details = new Details(context, () => this.close());
    this.groups = new Groups(context, this.tools.filter, {
      changed: () => this.refresh(),
      opened: (group) => this.open(this.details.group === group.number, () => this.details.openGroup(group.number)),
      isOpen: (group) => group.number === this.details.group,
    });
    this.items = new Table<Item>(itemColumns(), "of-items", {
      sorted: () => this.refresh(),
      opened: (item) => this.open(this.details.item?.key === item.key, () => this.details.openItem(item)),
      isOpen: (item) => item.key === this.details.item?.key,
    });
    this.node = h("div", "lists", this.tools.node, this.groups.table.node, this.items.node, this.details.node);
    this.node.addEventListener("keydown", (event) => this.escape(event));
    // What was held goes on.
    for (const left of ["pointerleave", "focusout"]) this.items.node.addEventListener(left, () => context.redraw());
  }

  private get grouped(): boolean {
    return this.context.store.order.length > 0;
  }

  render(now_s: number): void {
    const { head } = this.context.store;
    if (!head) return;
    hidden(this.groups.table.node, !this.grouped);
    hidden(this.items.node, this.grouped);
    // First the details: the row that is open shows it.
    if (this.details.isOpen) this.details.patch(now_s);
    if (this.grouped) this.renderGroups(head, now_s);
    else if (this.isDue(head, now_s)) this.renderItems(head, now_s);
  }

  /** A list that somebody is at stays as it is: what is pointed at must not become another item. */
  private isDue(head: Head, now_s: number): boolean {
    const isHeld = this.listed.length > 0 && this.listedAt_s > -Infinity && this.items.isHeld();
    if (isHeld) this.tools.offer(NO_COUNTS, ended(head.state), `${ITEMS_WORDS}, held while you are there`);
    return !isHeld && (now_s - this.listedAt_s >= ITEMS_EVERY_S || head.state !== this.listedState);
  }

  private renderGroups(head: Head, now_s: number): void {
    const { groups, order } = this.context.store;
    const largest = groups.get(order[0]!)!.items || 1;
    const expected = ended(head.state) ? 0 : Math.ceil((head.counts.total ?? Infinity) / largest);
    this.groups.patch(Math.min(ROWS, Math.max(order.length, expected)), now_s);
    this.tools.offer(this.groups.counts, ended(head.state));
    this.tools.tell(this.groups.shown, order.length);
  }

  private renderItems(head: Head, now_s: number): void {
    this.listedAt_s = now_s;
    this.listedState = head.state;
    const all = itemRows(this.context.store, ended(head.state));
    const { filter } = this.tools;
    const rows = filters(filter) ? all.filter((item) => matches(item, item.key, filter)) : all;
    this.listed = this.items.sort ? sorted(rows, this.items.sort) : rows;
    const visible = Math.min(ROWS, Math.max(all.length, head.counts.total ?? ROWS, 1));
    attribute(this.items.node, "aria-label", `Latest items of ${head.name}`);
    this.items.show(this.listed, visible, -1, all.length ? "No item matches the filter." : emptyWords(head));
    this.tools.offer(NO_COUNTS, ended(head.state), ITEMS_WORDS);
    this.tools.tell(rows.length, all.length);
  }

  /** Draw at once: what was asked for by hand does not wait its second. */
  private refresh(): void {
    this.groups.forget();
    this.listedAt_s = -Infinity;
    this.render(performance.now() / 1000);
  }

  private lines(): (string | number)[][] {
    const { groupWord, columns } = this.context.store;
    if (!this.grouped) return itemLines(this.listed);
    return groupLines(this.groups.all(), groupWord || "Group", columns, this.context.unix_s());
  }

  private open(again: boolean, open: () => void): void {
    if (again) this.details.close();
    else open();
    this.refresh();
    if (this.details.isOpen) this.details.node.scrollIntoView?.({ block: "nearest" });
  }

  private close(): void {
    const { group, item } = this.details;
    this.details.close();
    this.refresh();
    if (group !== null) this.groups.table.focus(this.groups.indexOf(group));
    else this.items.focus(this.listed.findIndex((row) => row.key === item?.key));
  }

  private escape(event: KeyboardEvent): void {
    if (event.key !== "Escape" || !this.details.isOpen || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    event.stopPropagation();
    this.close();
  }
}

/** Newest first; what failed comes first once all is over, and after the latest while it runs. */
function itemRows(store: Store, over: boolean): Item[] {
  const recent = store.items.toReversed();
  const failures = store.failures.toReversed();
  const [first, second] = over ? [failures, recent] : [recent, failures];
  const seen = new Set(first.map((item) => item.key));
  return [...first, ...second.filter((item) => !seen.has(item.key))];
}

function emptyWords(head: Head): string {
  if (head.counts.total === 0) return "There was nothing to do.";
  if (ended(head.state)) {
    const left = head.counts.skipped + head.counts.cancelled;
    return left ? "Nothing has ended; what is left runs at the next start." : "Everything was recorded before; nothing ran.";
  }
  if (head.breaker.state !== "closed") return "The service fails: no item has ended so far.";
  const waits = head.waiting !== "" && head.counts.running === 0;
  return head.state === "planned" || waits ? "Nothing has started yet." : "The first results are on their way.";
}
