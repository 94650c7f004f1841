// Table: as many rows as fit, out of as many as there are.
//
// Rows have one fixed height, so the row at a scroll position is a division; a pool of row nodes is laid over the
// place that is looked at, row i in node i modulo the pool. 10,000 rows are 20 nodes. One row in sight can be
// reached with Tab, the others with the arrows; when it is scrolled away, its neighbour in sight takes its place.
import { attribute, focusable, h, hidden, prefixed, text } from "./dom";
import { SortHead, type Sort } from "./sorthead";

export const ROW_PX = 28;
const HEAD_PX = 27;
const OVERSCAN = 4;

/** How one column is made and patched; `T` is what a row shows. */
export interface Column<T> {
  name: string;
  title: string;
  make(cell: HTMLElement): (row: T) => void;
  /** What it is sorted by; a blank ("" or NaN) comes last either way. */
  value?(row: T): string | number;
}

/** An array, or what looks rows up when they are seen. */
export interface Rows<T> {
  readonly length: number;
  at(index: number): T | undefined;
}

export interface Hooks<T> {
  /** Another order was asked for. */
  sorted?(): void;
  opened?(row: T): void;
  /** Other rows are in sight. */
  scrolled?(): void;
  isOpen?(row: T): boolean;
}

interface Slot<T> {
  node: HTMLElement;
  patches: ((row: T) => void)[];
  index: number;
}

export class Table<T> {
  private readonly body = h("div", "rows");
  private readonly empty = h("p", "empty");
  private readonly head: SortHead<T>;
  private readonly slots: Slot<T>[] = [];
  private rows: Rows<T> = [];
  private visible = 0;
  private following = true;
  /** The row that has the keyboard, or would have it. */
  active = 0;
  /** Read once a frame: to ask the browser after every write would make it lay out every time. */
  private top = 0;
  readonly node: HTMLElement;

  constructor(private columns: Column<T>[], name: string, private readonly hooks: Hooks<T> = {}) {
    this.head = new SortHead(() => hooks.sorted?.());
    this.head.setColumns(columns);
    this.node = h("div", "table", this.head.node, this.body, this.empty);
    this.node.classList.add(prefixed(name));
    this.node.setAttribute("role", "grid");
    this.body.setAttribute("role", "rowgroup");
    this.node.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("keydown", (event) => this.keyed(event));
    // A screen reader may put the keyboard on any row.
    this.body.addEventListener("focusin", (event) => {
      this.active = this.slots.find(({ node }) => node === event.target)?.index ?? this.active;
    });
    // Only the user's own hand ends the following; our own scrolling fires "scroll" too.
    for (const hand of ["wheel", "pointerdown", "touchmove", "keydown"]) {
      this.node.addEventListener(hand, (event) => this.touched(event), { passive: true });
    }
  }

  get sort(): Sort<T> | null {
    return this.head.sort;
  }

  setColumns(columns: Column<T>[]): void {
    this.columns = columns;
    this.head.setColumns(columns);
    for (const slot of this.slots.splice(0)) slot.node.remove();
  }

  title(name: string, title: string): void {
    this.head.title(name, title);
  }

  /** Show `rows` in a window of `visible` of them; `current` is kept in sight until the user scrolls, and while nobody is at the table. */
  show(rows: Rows<T>, visible: number, current = -1, empty = ""): void {
    this.top = this.node.scrollTop;
    this.rows = rows;
    this.visible = visible;
    style(this.node, "height", `${HEAD_PX + visible * ROW_PX + 1}px`);
    style(this.body, "height", `${Math.max(rows.length, visible) * ROW_PX}px`);
    this.top = Math.min(this.top, Math.max(0, rows.length - visible) * ROW_PX);
    attribute(this.node, "aria-rowcount", String(rows.length + 1));
    text(this.empty, rows.length ? "" : empty);
    hidden(this.empty, rows.length > 0);
    if (this.following && current >= 0 && !this.isHeld()) this.follow(current);
    this.layOut(true);
  }

  /** Whether the pointer or the keyboard is on it: then no row moves. */
  isHeld(): boolean {
    return this.node.matches(":hover") || this.node.contains(document.activeElement);
  }

  /** Put the keyboard on a row, or on the one that has it when there is no such row. */
  focus(index = this.active): void {
    this.active = Math.max(0, Math.min(index < 0 ? this.active : index, this.rows.length - 1));
    const first = this.top / ROW_PX;
    if (this.active < first) this.scrollTo(this.active);
    else if (this.active > first + this.visible - 1) this.scrollTo(this.active + 1 - this.visible);
    this.layOut();
    this.slot(this.active)?.node.focus({ preventScroll: true });
  }

  /** The rows that have nodes just now: those in sight, and a few around them. */
  inSight(): T[] {
    return this.slots.map((slot) => this.rows.at(slot.index)).filter((row) => row !== undefined);
  }

  private scrolled(): void {
    this.top = this.node.scrollTop;
    this.layOut();
    this.hooks.scrolled?.();
  }

  private touched(event: Event): void {
    if (!(event instanceof KeyboardEvent && event.key === "Tab")) this.following = false;
  }

  private clicked(event: Event): void {
    const node = (event.target as Element).closest(".ib-row");
    const slot = this.slots.find((slot) => slot.node === node);
    // Marking some of a row's text ends in a click as well.
    if (!slot || getSelection()?.type === "Range") return;
    this.active = slot.index;
    this.open(slot.index);
  }

  private keyed(event: KeyboardEvent): void {
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: this.visible,
      PageUp: -this.visible,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    const opens = event.key === "Enter" || event.key === " ";
    if ((!step && !opens) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (step) this.focus(Math.max(0, this.active + step));
    else this.open(this.active);
  }

  private open(index: number): void {
    const row = this.rows.at(index);
    if (row !== undefined) this.hooks.opened?.(row);
  }

  private follow(index: number): void {
    const first = this.top / ROW_PX;
    if (index >= Math.ceil(first) && index < Math.floor(first + this.visible)) return;
    // One row more than needed, so that what comes next is seen as well.
    this.scrollTo(index + 2 - this.visible);
  }

  private scrollTo(first: number): void {
    this.node.scrollTop = Math.max(0, first * ROW_PX);
    this.top = this.node.scrollTop;
  }

  private layOut(patchAll = false): void {
    const first = Math.max(0, Math.floor(this.top / ROW_PX) - OVERSCAN);
    const size = Math.min(this.rows.length, this.visible + 2 * OVERSCAN);
    const start = Math.max(0, Math.min(first, this.rows.length - size));
    const focused = this.hasFocus();
    while (this.slots.length < size) this.slots.push(this.makeSlot());
    while (this.slots.length > size) this.slots.pop()!.node.remove();
    for (let index = start; index < start + size; index += 1) {
      const slot = this.slots[index % size]!;
      if (slot.index !== index) place(slot, index);
      else if (!patchAll) continue;
      this.patch(slot, this.rows.at(index)!);
    }
    this.rove(focused);
  }

  private patch(slot: Slot<T>, row: T): void {
    for (const patch of slot.patches) patch(row);
    if (this.hooks.isOpen) attribute(slot.node, "aria-selected", String(this.hooks.isOpen(row)));
  }

  /** Keep the one row that Tab reaches among those in sight. */
  private rove(focused: boolean): void {
    const first = Math.ceil(this.top / ROW_PX);
    const last = Math.min(Math.floor(this.top / ROW_PX) + this.visible, this.rows.length) - 1;
    this.active = Math.max(0, Math.min(Math.max(this.active, first), last));
    for (const slot of this.slots) focusable(slot.node, slot.index === this.active ? 0 : -1);
    const node = this.slot(this.active)?.node;
    if (focused && node && !node.matches(":focus")) node.focus({ preventScroll: true });
  }

  hasFocus(): boolean {
    return this.body.querySelector(".ib-row:focus") !== null;
  }

  private slot(index: number): Slot<T> | undefined {
    return this.slots.find((slot) => slot.index === index);
  }

  private makeSlot(): Slot<T> {
    const node = h("div", "row");
    node.setAttribute("role", "row");
    const patches = this.columns.map((column) => {
      const cell = h("div", `cell ${column.name}`);
      cell.setAttribute("role", "gridcell");
      node.append(cell);
      return column.make(cell);
    });
    this.body.append(node);
    return { node, patches, index: -1 };
  }
}

function place<T>(slot: Slot<T>, index: number): void {
  slot.index = index;
  slot.node.style.transform = `translateY(${index * ROW_PX}px)`;
  slot.node.setAttribute("aria-rowindex", String(index + 2));
}

function style(node: HTMLElement, name: "height", value: string): void {
  if (node.style[name] !== value) node.style[name] = value;
}
