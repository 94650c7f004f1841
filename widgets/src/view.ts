// View: which pieces make up which view.
import { BreakerPiece } from "./breaker";
import { Fold } from "./compact";
import { attribute, h } from "./dom";
import { ErrorsPiece } from "./errors";
import { leaveByEscape } from "./leave";
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
    new ProgressPiece(context, () => context.open("errors")),
    new FactsPiece(context),
    new Tabs(context, [
      { name: "rows", title: () => rowsTitle(context), piece: new RowsPiece(context) },
      { name: "errors", title: () => "Errors", isOffered: () => hasFailures(context), piece: new ErrorsPiece(context) },
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

/** The sizes of JupyterLab's themes, which its settings change. */
const USUAL_PX = { "--jp-ui-font-size1": 13, "--jp-content-font-size1": 14 };
const [LEAST, MOST] = [0.75, 2.5];
const MEASURE_EVERY_S = 2;

export interface ViewOptions {
  /** Tabs of a whole panel that has room for them. */
  more?: Tab[];
  /** Begin as one line, which opens. */
  compact?: boolean;
}

export class View {
  private readonly pieces: Piece[];
  private readonly fold: Fold | null;
  private measuredAt_s = -Infinity;
  readonly node: HTMLElement;

  constructor(name: ViewName, private readonly context: Surroundings, { more = [], compact = false }: ViewOptions = {}) {
    const inside: Context = { ...context, open: (name) => this.open(name) };
    this.pieces = LAYOUTS[name](inside, more);
    this.fold = compact ? new Fold(inside, this.pieces) : null;
    this.node = h("section", "panel", ...(this.fold?.nodes ?? this.pieces.map((piece) => piece.node)));
    this.node.classList.add(`ib-view-${name}`);
    leaveByEscape(this.node);
  }

  /** Draw all as large as the texts around it, rows, bars and icons too; what fits is asked anew by that measure. */
  private measure(now_s: number): void {
    this.measuredAt_s = now_s;
    const root = this.node.closest<HTMLElement>(".ipybatch");
    const zoom = String(enlarged());
    if (root && (root.style.zoom || "1") !== zoom) root.style.zoom = zoom;
  }

  /** Bring the tab of that name to the front, if there is one. */
  open(name: string): void {
    this.fold?.open();
    for (const piece of this.pieces) if (piece instanceof Tabs) piece.open(name);
  }

  say(words: string): void {
    this.fold?.say(words);
    for (const piece of this.pieces) if (piece instanceof HeaderPiece || piece instanceof SaidPiece) piece.say(words);
  }

  render(now_s: number): void {
    const { head } = this.context.store;
    if (!head) return;
    if (now_s - this.measuredAt_s >= MEASURE_EVERY_S) this.measure(now_s);
    attribute(this.node, "aria-label", head.name);
    attribute(this.node, "data-is", head.state);
    attribute(this.node, "data-gone", this.context.gone() && !ended(head.state) ? "" : null);
    this.fold?.render(now_s);
    attribute(this.node, "data-folded", this.fold && !this.fold.isOpen ? "" : null);
    if (!this.fold || this.fold.isOpen) for (const piece of this.pieces) piece.render(now_s);
  }
}

/** How much larger than usual the reader has set JupyterLab's texts: its own ones, or what notebooks show. */
function enlarged(): number {
  const style = getComputedStyle(document.documentElement);
  const sizes = Object.entries(USUAL_PX).map(([name, px]) => (parseFloat(style.getPropertyValue(name)) || px) / px);
  return Math.round(100 * Math.max(LEAST, Math.min(MOST, Math.max(...sizes)))) / 100;
}

function hasFailures({ store }: Context): boolean {
  const counts = store.head?.counts;
  return counts !== undefined && counts.failed + counts.timeout > 0;
}

function rowsTitle({ store }: Context): string {
  if (store.order.length === 0) return "Items";
  const word = store.groupWord || "Group";
  return /(s|x|z|ch|sh)$/.test(word) ? `${word}es` : /[^aeiou]y$/.test(word) ? `${word.slice(0, -1)}ies` : `${word}s`;
}
