// View: the panel's nodes, made once and patched from the store.
import { groupColumns, itemColumns } from "./columns";
import { attribute, h, hidden, text } from "./dom";
import { Facts } from "./facts";
import { Header } from "./header";
import { icon } from "./icons";
import { Progress } from "./progress";
import type { CommandName, Group, Head, Item } from "./schema";
import { ended, type Store } from "./store";
import { Table } from "./table";

/** The table has room for these from the start, so nothing below it moves while it fills. */
const ROWS = 8;
/** A list in which every row is new ten times a second cannot be read. */
const ITEMS_EVERY_S = 1;

export class View {
  private readonly header: Header;
  private readonly progress = new Progress();
  private readonly facts = new Facts();
  private readonly reason = h("span");
  private readonly ending = h("p", "ending", icon("note"), this.reason);
  private readonly notes = h("ul", "notes");
  private readonly groups: Table<Group>;
  private readonly items = new Table<Item>(itemColumns(), "of-items");
  private itemsAt_s = -Infinity;
  private itemsState = "";
  readonly node: HTMLElement;

  constructor(
    private readonly store: Store,
    press: (name: CommandName) => void,
    private readonly isPending: (name: CommandName) => boolean,
    unix_s: () => number,
  ) {
    this.header = new Header(press);
    this.groups = new Table<Group>(groupColumns(unix_s), "of-groups");
    const { header, progress, facts, groups, items } = this;
    const parts = [header.node, progress.node, this.ending, facts.node, groups.node, items.node, this.notes];
    this.node = h("section", "panel", ...parts);
  }

  say(words: string): void {
    this.header.say(words);
  }

  /** Take in the rate of an update that has just come. */
  sample(now_s: number): void {
    const head = this.store.head;
    if (head?.state === "running") this.facts.spark.add(head.rate_per_s, now_s);
  }

  render(now_s: number): void {
    const head = this.store.head;
    if (!head) return;
    const passed_s = this.store.passed_s(now_s);
    attribute(this.node, "aria-label", head.name);
    attribute(this.node, "data-is", head.state);
    this.header.patch(head, passed_s, this.isPending);
    this.progress.patch(head, passed_s, now_s);
    this.facts.patch(head, passed_s);
    text(this.reason, head.reason);
    hidden(this.ending, !ended(head.state) || head.reason === "");
    this.renderRows(head, now_s);
    this.renderNotes(head.notes);
  }

  private renderRows(head: Head, now_s: number): void {
    const grouped = this.store.order.length > 0;
    hidden(this.groups.node, !grouped);
    hidden(this.items.node, grouped);
    if (grouped) this.renderGroups(head);
    else if (now_s - this.itemsAt_s >= ITEMS_EVERY_S || head.state !== this.itemsState) this.renderItems(head, now_s);
  }

  private renderGroups(head: Head): void {
    const { groups, order, running } = this.store;
    const rows = order.map((number) => groups.get(number)!);
    const current = running.size ? order.indexOf(Math.max(...running)) : -1;
    const word = this.store.groupWord || "Group";
    this.groups.title(2, word);
    attribute(this.groups.node, "aria-label", `${word} by ${word} of ${head.name}`);
    const largest = rows[0]?.items || 1;
    const expected = ended(head.state) ? 0 : Math.ceil((head.counts.total ?? Infinity) / largest);
    this.groups.show(rows, Math.min(ROWS, Math.max(rows.length, expected)), current);
  }

  private renderItems(head: Head, now_s: number): void {
    this.itemsAt_s = now_s;
    this.itemsState = head.state;
    const rows = itemRows(this.store, ended(head.state));
    const expected = head.counts.total ?? ROWS;
    attribute(this.items.node, "aria-label", `Latest items of ${head.name}`);
    this.items.show(rows, Math.min(ROWS, Math.max(rows.length, expected, 1)), -1, emptyWords(head));
  }

  private renderNotes(notes: string[]): void {
    hidden(this.notes, notes.length === 0);
    while (this.notes.childElementCount > notes.length) this.notes.lastElementChild!.remove();
    notes.forEach((note, index) => {
      if (!this.notes.children[index]) this.notes.append(h("li", "", icon("note"), h("span")));
      text(this.notes.children[index]!.lastElementChild!, note);
    });
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
