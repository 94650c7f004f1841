// Table: as many rows as fit, out of as many as there are.
//
// Rows have one fixed height, so the row at a scroll position is a division; a pool of row nodes is laid over the
// place that is looked at, row i in node i modulo the pool. 10,000 rows are 20 nodes.
import { attribute, h, hidden, prefixed, text } from "./dom";

export const ROW_PX = 28;
const HEAD_PX = 27;
const OVERSCAN = 4;

/** How one column is made and patched; `T` is what a row shows. */
export interface Column<T> {
  name: string;
  title: string;
  make(cell: HTMLElement): (row: T) => void;
}

interface Slot<T> {
  node: HTMLElement;
  patches: ((row: T) => void)[];
  index: number;
}

export class Table<T> {
  private readonly head = h("div", "row head");
  private readonly body = h("div", "rows");
  private readonly empty = h("p", "empty");
  private readonly slots: Slot<T>[] = [];
  private rows: readonly T[] = [];
  private visible = 0;
  private following = true;
  readonly node = h("div", "table", this.head, this.body, this.empty);

  constructor(private readonly columns: Column<T>[], name: string) {
    this.node.classList.add(prefixed(name));
    for (const [key, value] of Object.entries({ role: "table", tabindex: "0" })) this.node.setAttribute(key, value);
    this.head.setAttribute("role", "row");
    this.body.setAttribute("role", "rowgroup");
    for (const column of columns) this.head.append(cell("columnheader", column.name, column.title));
    this.node.addEventListener("scroll", () => this.layOut(), { passive: true });
    // Only the user's own hand ends the following; our own scrolling fires "scroll" too.
    for (const hand of ["wheel", "pointerdown", "touchmove", "keydown"]) {
      this.node.addEventListener(hand, (event) => this.touched(event), { passive: true });
    }
  }

  title(column: number, title: string): void {
    text(this.head.children[column]!, title);
  }

  /** Show `rows` in a window of `visible` of them; `current` is kept in sight until the user scrolls. */
  show(rows: readonly T[], visible: number, current = -1, empty = ""): void {
    this.rows = rows;
    this.visible = visible;
    this.node.style.height = `${HEAD_PX + visible * ROW_PX + 1}px`;
    this.body.style.height = `${Math.max(rows.length, visible) * ROW_PX}px`;
    attribute(this.node, "aria-rowcount", String(rows.length + 1));
    text(this.empty, rows.length ? "" : empty);
    hidden(this.empty, rows.length > 0);
    if (this.following && current >= 0) this.bringIntoSight(current);
    this.layOut(true);
  }

  private touched(event: Event): void {
    if (!(event instanceof KeyboardEvent && event.key === "Tab")) this.following = false;
  }

  private bringIntoSight(index: number): void {
    const first = this.node.scrollTop / ROW_PX;
    if (index >= Math.ceil(first) && index < Math.floor(first + this.visible)) return;
    // One row more than needed, so that what comes next is seen as well.
    this.node.scrollTop = Math.max(0, (index + 2 - this.visible) * ROW_PX);
  }

  private layOut(patchAll = false): void {
    const first = Math.max(0, Math.floor(this.node.scrollTop / ROW_PX) - OVERSCAN);
    const size = Math.min(this.rows.length, this.visible + 2 * OVERSCAN);
    const start = Math.max(0, Math.min(first, this.rows.length - size));
    while (this.slots.length < size) this.slots.push(this.makeSlot());
    while (this.slots.length > size) this.slots.pop()!.node.remove();
    for (let index = start; index < start + size; index += 1) {
      const slot = this.slots[index % size]!;
      if (slot.index !== index) this.place(slot, index);
      else if (!patchAll) continue;
      const row = this.rows[index]!;
      for (const patch of slot.patches) patch(row);
    }
  }

  private place(slot: Slot<T>, index: number): void {
    slot.index = index;
    slot.node.style.transform = `translateY(${index * ROW_PX}px)`;
    slot.node.setAttribute("aria-rowindex", String(index + 2));
  }

  private makeSlot(): Slot<T> {
    const node = h("div", "row");
    node.setAttribute("role", "row");
    const patches = this.columns.map((column) => {
      const made = cell("cell", column.name);
      node.append(made);
      return column.make(made);
    });
    this.body.append(node);
    return { node, patches, index: -1 };
  }
}

function cell(role: string, name: string, title = ""): HTMLElement {
  const node = h("div", `cell ${name}`, title);
  node.setAttribute("role", role);
  return node;
}
