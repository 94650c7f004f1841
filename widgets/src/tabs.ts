// Tabs: one of several pieces at a time, under a row of their names. Only the one that is seen is drawn.
import { attribute, h, hidden, ownId, text } from "./dom";
import type { Context, Piece } from "./piece";

/** Room is kept for so many rows from the start, so that nothing jumps as they come; for fewer if there will be fewer. */
const ROWS = 6;
/** So much of the neighbour is left in sight. */
const PEEK_PX = 20;

export interface Tab {
  /** What it is opened by. */
  name: string;
  /** What it is called just now. */
  title(): string;
  /** Whether it is offered just now; always, unless it says so. */
  isOffered?(): boolean;
  piece: Piece;
}

export class Tabs implements Piece {
  private readonly row = h("div", "tabs");
  private readonly buttons: HTMLButtonElement[];
  private current = 0;
  readonly node: HTMLElement;

  constructor(private readonly context: Context, private readonly tabs: Tab[]) {
    this.row.setAttribute("role", "tablist");
    this.buttons = tabs.map((tab, index) => this.makeButton(tab, index));
    this.row.append(...this.buttons);
    this.row.addEventListener("keydown", (event) => this.move(event));
    this.node = h("div", "book", this.row, ...tabs.map((tab) => tab.piece.node));
    this.show(0);
  }

  render(now_s: number): void {
    const { total } = this.context.store.head!.counts;
    this.node.style.setProperty("--rows", String(Math.min(total ?? ROWS, ROWS)));
    this.tabs.forEach((tab, index) => {
      patchName(this.buttons[index]!, tab.title());
      hidden(this.buttons[index]!, !offered(tab));
    });
    if (!offered(this.tabs[this.current]!)) this.show(0);
    this.tabs[this.current]!.piece.render(now_s);
  }

  /** Select a tab by its name and put the keyboard on it; return whether it is offered. */
  open(name: string): boolean {
    const index = this.tabs.findIndex((tab) => tab.name === name && offered(tab));
    const button = this.buttons[index];
    if (!button) return false;
    hidden(button, false); // it may be offered since the last drawing
    this.select(index);
    button.focus({ preventScroll: true });
    this.node.scrollIntoView?.({ block: "nearest" });
    return true;
  }

  private makeButton(tab: Tab, index: number): HTMLButtonElement {
    const button = h("button", "", h("span"), h("span", "rest"));
    patchName(button, tab.title());
    const { node } = tab.piece;
    button.type = "button";
    button.id = ownId("tab");
    node.id = ownId("body");
    node.classList.add("ib-tab");
    for (const [name, value] of [["role", "tab"], ["aria-controls", node.id]] as const) button.setAttribute(name, value);
    node.setAttribute("role", "tabpanel");
    node.setAttribute("aria-labelledby", button.id);
    button.addEventListener("click", () => this.select(index));
    return button;
  }

  private select(index: number): void {
    this.show(index);
    this.context.redraw();
  }

  private show(index: number): void {
    this.current = index;
    this.buttons.forEach((button, at) => {
      attribute(button, "aria-selected", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
      hidden(this.tabs[at]!.piece.node, at !== index);
    });
    this.reveal(this.buttons[index]!);
  }

  /** Scroll the row of names, and nothing else, so that this one is seen whole. */
  private reveal(button: HTMLElement): void {
    const left = button.offsetLeft - this.row.offsetLeft;
    const least = left + button.offsetWidth + PEEK_PX - this.row.clientWidth;
    const most = Math.max(0, left - PEEK_PX);
    if (this.row.scrollLeft > most || this.row.scrollLeft < least) this.row.scrollLeft = Math.min(most, least);
  }

  /** Arrows walk along the row, as in every tab list. */
  private move(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const count = this.tabs.length;
    let index = this.current;
    do index = (index + step + count) % count;
    while (!offered(this.tabs[index]!));
    this.select(index);
    this.buttons[index]!.focus();
  }
}

/** Of "Limits and breaker" a narrow row shows "Limits"; it is read out whole. */
function patchName({ firstElementChild, lastElementChild }: Element, name: string): void {
  const at = name.includes(" and ") ? name.indexOf(" and ") : name.length;
  text(firstElementChild!, name.slice(0, at));
  text(lastElementChild!, name.slice(at));
}

function offered(tab: Tab): boolean {
  return tab.isOffered?.() ?? true;
}
