// Rows: the table of groups, or of the latest items where there are no groups.
import { groupColumns, itemColumns } from "./columns";
import { attribute, h, hidden } from "./dom";
import type { Context, Piece } from "./piece";
import type { Group, Head, Item } from "./schema";
import { ended, type Store } from "./store";
import { Table } from "./table";

/** The table has room for these from the start, so nothing below it moves while it fills. */
const ROWS = 8;
/** A list in which every row is new ten times a second cannot be read. */
const ITEMS_EVERY_S = 1;

export class RowsPiece implements Piece {
  private readonly groups: Table<Group>;
  private readonly items = new Table<Item>(itemColumns(), "of-items");
  private itemsAt_s = -Infinity;
  private itemsState = "";
  readonly node: HTMLElement;

  constructor(private readonly context: Context) {
    this.groups = new Table<Group>(groupColumns(() => context.unix_s()), "of-groups");
    this.node = h("div", "lists", this.groups.node, this.items.node);
  }

  render(now_s: number): void {
    const { head, order } = this.context.store;
    if (!head) return;
    const grouped = order.length > 0;
    hidden(this.groups.node, !grouped);
    hidden(this.items.node, grouped);
    if (grouped) this.renderGroups(head);
    else if (now_s - this.itemsAt_s >= ITEMS_EVERY_S || head.state !== this.itemsState) this.renderItems(head, now_s);
  }

  private renderGroups(head: Head): void {
    const { groups, order, running, groupWord } = this.context.store;
    const rows = order.map((number) => groups.get(number)!);
    const current = running.size ? order.indexOf(Math.max(...running)) : -1;
    const word = groupWord || "Group";
    this.groups.title(2, word);
    attribute(this.groups.node, "aria-label", `${word} by ${word} of ${head.name}`);
    const largest = rows[0]?.items || 1;
    const expected = ended(head.state) ? 0 : Math.ceil((head.counts.total ?? Infinity) / largest);
    this.groups.show(rows, Math.min(ROWS, Math.max(rows.length, expected)), current);
  }

  private renderItems(head: Head, now_s: number): void {
    this.itemsAt_s = now_s;
    this.itemsState = head.state;
    const rows = itemRows(this.context.store, ended(head.state));
    const expected = head.counts.total ?? ROWS;
    attribute(this.items.node, "aria-label", `Latest items of ${head.name}`);
    this.items.show(rows, Math.min(ROWS, Math.max(rows.length, expected, 1)), -1, emptyWords(head));
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
  if (ended(head.state)) return "Everything was recorded before; nothing ran.";
  return head.state === "planned" ? "Nothing has started yet." : "The first results are on their way.";
}
