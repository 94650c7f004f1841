// Groups: the table of groups. What needs a look at all of them is done at most once a second, not once a frame.
import { groupColumns } from "./columns";
import { attribute } from "./dom";
import { count } from "./format";
import type { Context } from "./piece";
import type { Group } from "./schema";
import { filters, isBad, matches, sorted, type Filter, type ShownStatus } from "./selection";
import { ended } from "./store";
import { survey, type Extra } from "./survey";
import { Table, type Rows } from "./table";

const AGAIN_S = 1;
/** Room for "Items", however small the groups are. */
const LEAST_CHARS = 5.5;
/** More columns leave no room for the others in a panel of usual width; the details have them all. */
const EXTRAS = 4;
/** A panel as wide as a page has room for these. */
const MOST_EXTRAS = 8;
const EXTRA_CHARS = 16;

export class Groups {
  readonly table: Table<Group>;
  counts: ReadonlyMap<ShownStatus, number> = new Map();
  /** The numbers of those that are shown, in the order they are shown. */
  private order: readonly number[] = [];
  private extras = "";
  private widths: number[] = [];
  private version = -1;
  private state = "";
  private lookedAt_s = -Infinity;
  private badFirst = false;
  private largest = 0;

  constructor(
    private readonly context: Context,
    private readonly filter: Filter,
    hooks: { changed(): void; opened(group: Group): void; isOpen(group: Group): boolean },
  ) {
    const columns = groupColumns([], () => context.unix_s());
    this.table = new Table<Group>(columns, "of-groups", { ...hooks, sorted: () => hooks.changed() });
    for (const left of ["pointerleave", "focusout"]) this.table.node.addEventListener(left, () => context.redraw());
  }

  get shown(): number {
    return this.order.length;
  }

  /** Everything that is shown, seen or not. */
  all(): Group[] {
    return this.order.map((number) => this.context.store.groups.get(number)!);
  }

  /** The place of a group among those shown, or -1. */
  indexOf(number: number): number {
    return this.order.indexOf(number);
  }

  /** Have the next patch look at all groups anew, whatever the time. */
  forget(): void {
    this.version = -1;
    this.lookedAt_s = -Infinity;
  }

  patch(visible: number, now_s: number): void {
    const { head, groups, order, running, groupWord } = this.context.store;
    const word = groupWord || "Group";
    this.turn();
    this.lookAgain(now_s);
    this.table.title("subject", word);
    attribute(this.table.node, "aria-label", `${word} by ${word} of ${head!.name}`);
    const rows: Rows<Group> = { length: this.order.length, at: (index) => groups.get(this.order[index]!) };
    const current = this.order === order && running.size ? order.indexOf(Math.max(...running)) : -1;
    this.table.show(rows, visible, current, `No ${word.toLowerCase()} matches the filter.`);
  }

  /**
   * Once all is over, what failed comes first, as a person would look for it. While the session runs it does not: rows
   * would move with each failure; nor at its end while the pointer or the keyboard is on the table.
   */
  private turn(): void {
    const over = ended(this.context.store.head!.state);
    if (over === this.badFirst || (over && this.table.isHeld())) return;
    this.badFirst = over;
    this.forget();
  }

  /** A look at 10,000 groups takes milliseconds; while they run, it can wait. */
  private lookAgain(now_s: number): void {
    const { head, groups, order, columns, version, wholes } = this.context.store;
    const state = `${head!.state}/${wholes}`;
    const soon = ended(head!.state) || state !== this.state || now_s - this.lookedAt_s >= AGAIN_S;
    // A clock that ticks may move a row without any update.
    const ticks = this.table.sort?.column.name === "time" && this.context.store.running.size > 0;
    if (!soon || (version === this.version && state === this.state && !ticks)) return;
    // Rows that are sorted or filtered change places: not under the pointer or the keyboard.
    const stays = this.version >= 0 && state === this.state && this.order !== order && this.table.isHeld();
    this.version = version;
    this.state = state;
    this.lookedAt_s = now_s;
    const { counts, extras } = survey(groups.values(), columns);
    this.counts = counts;
    for (const { items } of groups.values()) this.largest = Math.max(this.largest, items);
    // As wide as "100 / 100".
    this.table.node.style.setProperty("--items", `${Math.max(LEAST_CHARS, 2 * count(this.largest).length + 1.5)}ch`);
    this.makeRoom(extras.filter(({ empty }) => !empty).slice(0, MOST_EXTRAS));
    if (!stays) this.order = this.ordered();
  }

  private ordered(): readonly number[] {
    const { groups, order } = this.context.store;
    const { sort } = this.table;
    const hasBad = this.badFirst && [...groups.values()].some(isBad);
    // In their natural order they are the store's own, which goes on by itself.
    if (!sort && !filters(this.filter) && !hasBad) return order;
    const rows = order.map((number) => groups.get(number)!).filter((group) => matches(group, group.name, this.filter));
    if (sort) return sorted(rows, sort).map((group) => group.number);
    const inOrder = hasBad ? [...rows.filter(isBad), ...rows.filter((group) => !isBad(group))] : rows;
    return inOrder.map((group) => group.number);
  }

  /** Make the columns of the workload's own anew when they change; their widths only grow. */
  private makeRoom(extras: Extra[]): void {
    const single = this.largest === 1;
    const key = JSON.stringify([single, ...extras.map(({ title, numeric }) => [title, numeric])]);
    if (key !== this.extras) {
      this.extras = key;
      this.widths = [];
      this.table.node.classList.toggle("ib-of-single", single);
      this.table.setColumns(groupColumns(extras, () => this.context.unix_s(), single));
    }
    const widths = extras.map(({ title, chars }, at) => {
      return Math.max(this.widths[at] ?? 4, Math.min(EXTRA_CHARS, Math.max(chars + 1, title.length)));
    });
    if (widths.join() === this.widths.join()) return;
    this.widths = widths;
    const tracks = widths.map((chars, at) => `minmax(${extras[at]!.least + 1}ch, ${chars}ch)`);
    this.table.node.style.setProperty("--extras", tracks.slice(0, EXTRAS).join(" "));
    this.table.node.style.setProperty("--more-extras", tracks.slice(EXTRAS).join(" "));
  }
}
