// Timeline: attempts a second against what is allowed, the breaker's openings, and the groups, on one time axis.
import { Chart, crisp, gutter, path, type Rates } from "./chart";
import { attribute, h, hidden, ownId, prefixed, svg, text } from "./dom";
import { clock, count, figure, limit, rateUnit } from "./format";
import { Gantt } from "./gantt";
import { GroupKeys, RateKeys } from "./keys";
import type { Context, Piece } from "./piece";
import { average, openings, rates } from "./rates";
import { shownStatus, statusWord } from "./selection";
import { ended, type Store } from "./store";
import { CUT_PX, timeOfDay, Timescale, worked, type Span } from "./timescale";
import { widthOf, Words } from "./words";

const HEIGHT = 195;
/** What the keys of the groups leave to the chart where there are no groups. */
const KEYS = 24;
const TOP = 4;
const AXIS = 20;
const GAP = 10;
/** Of a page that has not been laid out yet. */
const USUAL_WIDTH = 880;
const DRAW_EVERY_S = 0.5;
const MOST_BINS = 120;
const TICKS = 6;

export class TimelinePiece implements Piece {
  private readonly rateKeys = new RateKeys();
  private readonly groupKeys = new GroupKeys();
  private readonly said = h("span", "readout");
  private readonly empty = h("p", "empty");
  private readonly open = path("open");
  private readonly ticks = path("ticks");
  private readonly cuts = path("cuts");
  private readonly pointer = path("pointer");
  private readonly times = new Words("times");
  private readonly idle = new Words("idle");
  private readonly gantt = new Gantt();
  private readonly chart: Chart;
  private readonly drawing: SVGSVGElement;
  private readonly body: HTMLElement;
  readonly node: HTMLElement;
  private scale: Timescale | null = null;
  private shown: Rates = { bins: [], allowed_per_s: null, unit: rateUnit(1) };
  private spans: Span[] = [];
  /** As it was told: asking for it at every drawing would cost a layout. */
  private width = 0;
  private high = HEIGHT;
  private drawnAs = "";
  private drawnAt_s = -Infinity;

  constructor(private readonly context: Context) {
    const [failures, hatch] = [ownId("failures"), ownId("hatch")];
    this.chart = new Chart(failures);
    this.open.style.fill = `url(#${hatch})`;
    const defs = svg("defs", {}, stripes(failures, 4, "failures"), stripes(hatch, 7, "open"));
    const parts = [this.open, this.chart.node, this.gantt.node, this.ticks, this.cuts, this.times.node, this.idle.node];
    const all = svg("g", { "aria-hidden": "true" }, ...parts, this.pointer);
    this.drawing = svg("svg", { class: prefixed("drawing"), role: "img" }, defs, all);
    this.body = h("div", "", h("div", "keys", this.rateKeys.node, this.said), this.drawing, this.groupKeys.node);
    this.node = h("div", "timeline", this.body, this.empty);
    this.drawing.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
    this.drawing.addEventListener("pointerleave", () => this.point(NaN, NaN));
    new ResizeObserver(([entry]) => this.resize(entry?.contentRect.width ?? 0)).observe(this.body);
  }

  render(now_s: number): void {
    const { store } = this.context;
    const { state } = store.head!;
    const width = (this.width ||= this.body.clientWidth) || USUAL_WIDTH;
    const as = `${state} ${width}`;
    // What has ended is drawn at every update: nothing would come later to make up for one that was left out.
    if (as === this.drawnAs && !ended(state) && now_s - this.drawnAt_s < DRAW_EVERY_S) return;
    [this.drawnAs, this.drawnAt_s] = [as, now_s];
    const words = emptyWords(store);
    text(this.empty, words);
    hidden(this.empty, !words);
    attribute(this.body, "style", words ? "visibility: hidden" : null);
    if (!words) this.draw(store, width, extent(store, now_s));
  }

  /** Of a tab that is not shown the width is 0: the one it had is more likely. */
  private resize(width: number): void {
    if (width === 0 || width === this.width) return;
    this.width = width;
    this.context.redraw();
  }

  private draw(store: Store, width: number, { from_s, to_s }: Span): void {
    const spans = worked(store.pace, from_s, to_s);
    const bins = rates(store.pace, spans, MOST_BINS);
    const { allowed_per_s } = store.head!;
    const unit = rateUnit(Math.max(allowed_per_s ?? 0, ...bins.map((bin) => bin.started_per_s)));
    this.shown = { bins, allowed_per_s, unit };
    this.spans = openings(store.moves, to_s);
    const scale = (this.scale = new Timescale(spans, Math.ceil(gutter(this.shown)), width - 1));
    this.high = store.groups.size ? HEIGHT : HEIGHT + KEYS;
    attribute(this.drawing, "viewBox", `0 0 ${width} ${this.high}`);
    attribute(this.drawing, "style", `height: ${this.high}px`);
    attribute(this.drawing, "aria-label", essence(store, average(store.pace, spans)));
    this.gantt.layout(store.groups, to_s);
    const bottom = this.high - AXIS - (this.gantt.height ? this.gantt.height + GAP : 0);
    this.chart.draw(this.shown, scale, TOP, bottom);
    this.gantt.draw(store.groups, to_s, scale, bottom + GAP);
    this.drawTime(scale);
    this.rateKeys.patch(this.shown, this.spans.length > 0);
    this.groupKeys.patch(store);
    hidden(this.groupKeys.node, store.groups.size === 0);
  }

  private drawTime(scale: Timescale): void {
    const low = this.high - AXIS;
    const open = this.spans.map(({ from_s, to_s }) => {
      const x = scale.x(from_s);
      return [x.toFixed(1), Math.max(1.5, scale.x(to_s) - x).toFixed(1)];
    });
    attribute(this.open, "d", open.map(([x, wide]) => `M${x} ${TOP}h${wide}V${low}h-${wide}z`).join(""));
    const ticks = scale.ticks(TICKS);
    const line = `M${scale.left} ${crisp(low)}H${scale.right.toFixed(1)}`;
    attribute(this.ticks, "d", line + ticks.map(({ x }) => `M${crisp(x)} ${low}v4`).join(""));
    let free = 0;
    for (const { x, words } of ticks) {
      const half = widthOf(words) / 2;
      const middle = Math.min(Math.max(x, half), scale.right - half);
      // Words that would run into those before them are left out; their line stays.
      if (middle - half < free) continue;
      free = middle + half + 6;
      this.times.put(middle, this.high - 4, words, "middle");
    }
    this.times.done();
    this.drawCuts(scale);
  }

  private drawCuts(scale: Timescale): void {
    const low = this.high - AXIS;
    const cuts = scale.cuts();
    attribute(this.cuts, "d", cuts.map(({ x }) => `M${x} ${TOP}h${CUT_PX}V${low + 1}h-${CUT_PX}z`).join(""));
    for (const { x, seconds } of cuts) {
      this.idle.put(x + CUT_PX / 2 + 3.5, low / 2, `${clock(seconds)} not running`, "middle", true);
    }
    this.idle.done();
  }

  /** Tell what lies under the pointer. */
  private point(x: number, y: number): void {
    const { scale } = this;
    const on = scale !== null && x >= scale.left && x <= scale.right;
    attribute(this.pointer, "d", on ? `M${crisp(x)} ${TOP}V${this.high - AXIS}` : "");
    attribute(this.node, "data-pointed", on ? "" : null);
    text(this.said, on ? this.told(scale, x, y) : "");
  }

  private told(scale: Timescale, x: number, y: number): string {
    const at_s = scale.at_s(x);
    const { bins, unit } = this.shown;
    const bin = bins.find((bin) => bin.from_s <= at_s && at_s <= bin.to_s);
    const parts = [timeOfDay(at_s)];
    if (bin) parts.push(`${figure(bin.started_per_s * unit.per_s)} ${unit.word}`);
    if (bin && bin.failed_per_s > 0) parts.push(`${figure(bin.failed_per_s * unit.per_s)} ${unit.word} failed`);
    if (this.spans.some((span) => span.from_s <= at_s && at_s <= span.to_s)) parts.push("breaker open");
    const group = this.gantt.at(x, y);
    if (group) {
      const seconds = (group.ended_s || Math.max(at_s, scale.pieces.at(-1)!.to_s)) - group.started_s;
      parts.push(`${group.name}: ${statusWord(shownStatus(group))}, ${count(group.done)} of ${count(group.items)}, ${clock(seconds)}`);
    }
    return parts.join(" \u00b7 ");
  }
}

/** From the first thing that is known to the last one, or to now. */
function extent(store: Store, now_s: number): Span {
  const head = store.head!;
  const { pace, moves } = store;
  const from = [pace[0]?.at_s ?? Infinity, head.started_s || Infinity];
  const to = [pace.at(-1)?.at_s ?? 0, moves.at(-1)?.at_s ?? 0, ended(head.state) ? 0 : head.at_s + store.passed_s(now_s)];
  for (const { started_s, ended_s } of store.groups.values()) {
    if (started_s > 0 && started_s < from[0]!) from[0] = started_s;
    if (ended_s > to[0]!) to[0] = ended_s;
  }
  const from_s = Math.min(...from);
  return { from_s, to_s: Math.max(from_s + 0.01, ...to) };
}

function emptyWords({ head, pace, groups }: Store): string {
  if (head!.state === "planned") return "Nothing has started yet.";
  const begun = (pace.at(-1)?.started ?? 0) > 0 || groups.size > 0;
  if (begun) return "";
  return ended(head!.state) ? "Nothing was started." : pace.length ? "" : "Nothing has started yet.";
}

/** The drawing in words. */
function essence({ head, pace, moves, groups }: Store, average_per_s: number): string {
  const allowed = head!.allowed_per_s;
  const unit = rateUnit(Math.max(average_per_s, allowed ?? 0));
  const word = { "/s": "second", "/min": "minute", "/h": "hour" }[unit.word]!;
  const parts = [`${figure(Number((average_per_s * unit.per_s).toPrecision(3)))} attempts per ${word} on average`];
  if (allowed !== null) parts[0] += `, ${limit(allowed * unit.per_s)} allowed`;
  if (pace.at(-1)?.failed) parts.push(`${count(pace.at(-1)!.failed)} failed`);
  const opened = moves.filter((move) => move.state === "open").length;
  if (opened) parts.push(`breaker opened ${["", "once", "twice"][opened] ?? `${opened} times`}`);
  if (groups.size) parts.push(`${count(groups.size)} bars, one for each group`);
  return parts.join("; ");
}

function stripes(id: string, size: number, name: string): SVGPatternElement {
  const line = path("stripe");
  line.setAttribute("d", `M0 0V${size}`);
  const whole = svg("rect", { width: String(size), height: String(size) });
  const placed = { id, width: String(size), height: String(size), patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
  return svg("pattern", { ...placed, class: prefixed(`stripes-${name}`) }, whole, line);
}
