// Sorthead: the titles of a table's columns. A press sorts by one; the third in a row is the natural order again.
import { attribute, h, text } from "./dom";
import { icon, setIcon } from "./icons";
import type { Column } from "./table";

export interface Sort<T> {
  column: Column<T>;
  descending: boolean;
}

interface Title {
  cell: HTMLElement;
  word: HTMLElement;
  arrow: SVGSVGElement;
}

export class SortHead<T> {
  private titles: Title[] = [];
  private columns: Column<T>[] = [];
  /** By its name: the columns may be made anew. */
  private by = "";
  private descending = false;
  readonly node = h("div", "row head");

  constructor(private readonly sorted: () => void) {
    this.node.setAttribute("role", "row");
  }

  get sort(): Sort<T> | null {
    const column = this.columns.find((column) => column.name === this.by);
    return column ? { column, descending: this.descending } : null;
  }

  setColumns(columns: Column<T>[]): void {
    this.columns = columns;
    this.titles = columns.map((column) => this.makeTitle(column));
    this.node.replaceChildren(...this.titles.map((title) => title.cell));
    this.patch();
  }

  title(name: string, title: string): void {
    const index = this.columns.findIndex((column) => column.name === name);
    if (this.titles[index]) text(this.titles[index].word, title);
  }

  private makeTitle(column: Column<T>): Title {
    const [word, arrow] = [h("span", "", column.title), icon()];
    const button = h("button", "", word);
    const cell = h("div", `cell ${column.name}`, column.value ? button : word);
    button.append(arrow);
    button.type = "button";
    button.addEventListener("click", () => this.press(column));
    cell.setAttribute("role", "columnheader");
    return { cell, word, arrow };
  }

  private press(column: Column<T>): void {
    const again = column.name === this.by;
    this.by = again && this.descending ? "" : column.name;
    this.descending = again && !this.descending;
    this.patch();
    this.sorted();
  }

  private patch(): void {
    const word = this.descending ? "descending" : "ascending";
    this.titles.forEach(({ cell, arrow }, index) => {
      const column = this.columns[index]!;
      const is = column.name === this.by;
      if (column.value) attribute(cell, "aria-sort", is ? word : "none");
      attribute(arrow, "data-shown", is ? "" : null);
      setIcon(arrow, is ? word : "ascending");
    });
  }
}
