// View: which pieces make up which view.
import { BreakerPiece } from "./breaker";
import { attribute, h } from "./dom";
import { LogPiece } from "./log";
import type { Context, Piece, Surroundings } from "./piece";
import { RowsPiece } from "./rows";
import type { ViewName } from "./schema";
import { SettingsPiece } from "./settings";
import { FactsPiece, HeaderPiece, NotesPiece, ProgressPiece, SaidPiece } from "./sheet";
import { Stack } from "./stack";
import { ended } from "./store";
import { Tabs, type Tab } from "./tabs";
import { TimelinePiece } from "./timeline";

const LAYOUTS: Record<ViewName, (context: Context, more: Tab[]) => Piece[]> = {
  panel: (context, more) => [
    new HeaderPiece(context),
    new ProgressPiece(context),
    new FactsPiece(context),
    new Tabs(context, [
      { name: "rows", title: () => rowsTitle(context), piece: new RowsPiece(context) },
      { name: "timeline", title: () => "Timeline", piece: new TimelinePiece(context) },
      { name: "limits", title: () => "Limits and breaker", piece: new Stack([new BreakerPiece(context), new SettingsPiece(context)]) },
      { name: "log", title: () => "Log", piece: new LogPiece(context) },
      ...more,
    ]),
    new NotesPiece(context),
  ],
  progress: (context) => [new HeaderPiece(context), new ProgressPiece(context)],
  table: (context) => [new RowsPiece(context)],
  breaker: (context) => [new BreakerPiece(context), new SettingsPiece(context), new SaidPiece()],
  timeline: (context) => [new TimelinePiece(context)],
  log: (context) => [new LogPiece(context)],
};

export const VIEWS = Object.keys(LAYOUTS) as ViewName[];

export class View {
  private readonly pieces: Piece[];
  readonly node: HTMLElement;

  /** `more` are tabs of a whole panel that has room for them. */
  constructor(name: ViewName, private readonly context: Surroundings, more: Tab[] = []) {
    this.pieces = LAYOUTS[name]({ ...context, open: (name) => this.open(name) }, more);
    this.node = h("section", "panel", ...this.pieces.map((piece) => piece.node));
    this.node.classList.add(`ib-view-${name}`);
  }

  /** Bring the tab of that name to the front, if there is one. */
  open(name: string): void {
    for (const piece of this.pieces) if (piece instanceof Tabs) piece.open(name);
  }

  say(words: string): void {
    for (const piece of this.pieces) if (piece instanceof HeaderPiece || piece instanceof SaidPiece) piece.say(words);
  }

  sample(now_s: number): void {
    for (const piece of this.pieces) piece.sample?.(now_s);
  }

  render(now_s: number): void {
    const { head } = this.context.store;
    if (!head) return;
    attribute(this.node, "aria-label", head.name);
    attribute(this.node, "data-is", head.state);
    attribute(this.node, "data-gone", this.context.gone() && !ended(head.state) ? "" : null);
    for (const piece of this.pieces) piece.render(now_s);
  }
}

function rowsTitle({ store }: Context): string {
  if (store.order.length === 0) return "Items";
  const word = store.groupWord || "Group";
  return /(s|x|z|ch|sh)$/.test(word) ? `${word}es` : /[^aeiou]y$/.test(word) ? `${word.slice(0, -1)}ies` : `${word}s`;
}
