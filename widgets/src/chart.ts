// Chart: attempts per second over time, the failed ones beneath, and the dashed line of what is allowed.
import { attribute, prefixed, svg } from "./dom";
import { figure, limit, type RateUnit } from "./format";
import type { Bin } from "./rates";
import { CUT_PX, type Timescale } from "./timescale";
import { widthOf, Words } from "./words";

/** What a chart is drawn of. */
export interface Rates {
  bins: readonly Bin[];
  allowed_per_s: number | null;
  unit: RateUnit;
}

const HEADROOM = 1.12;
/** A limit that is this much higher than anything that happened is told in words only: else all else is flat. */
const FAR = 4;

export class Chart {
  private readonly grid = path("grid");
  private readonly area = path("area");
  private readonly line = path("rate");
  private readonly failed = path("failures");
  private readonly failedLine = path("failed-rate");
  private readonly allowed = path("allowed");
  private readonly figures = new Words("figures");
  private readonly label = new Words("label");
  readonly node: SVGGElement;

  /** `hatch` names the pattern of the failures. */
  constructor(hatch: string) {
    this.failed.style.fill = `url(#${hatch})`;
    const drawn = [this.grid, this.area, this.failed, this.failedLine, this.line, this.allowed];
    this.node = svg("g", {}, ...drawn, this.figures.node, this.label.node);
  }

  draw({ bins, allowed_per_s, unit }: Rates, scale: Timescale, top: number, bottom: number): void {
    const most = topOf(bins, allowed_per_s);
    const y = (rate: number): number => bottom - (Math.min(rate, most) / most) * (bottom - top);
    this.drawGrid(scale, most * unit.per_s, (rate) => y(rate / unit.per_s));
    const started = outline(bins, scale, (bin) => y(bin.started_per_s));
    const failed = bins.some((bin) => bin.failed_per_s > 0) ? outline(bins, scale, (bin) => y(bin.failed_per_s)) : [];
    attribute(this.line, "d", started.join(""));
    attribute(this.area, "d", started.map((part) => closed(part, bottom)).join(""));
    attribute(this.failed, "d", failed.map((part) => closed(part, bottom)).join(""));
    attribute(this.failedLine, "d", failed.join(""));
    this.drawAllowed(allowed_per_s, unit, scale, y, most, top);
  }

  private drawGrid(scale: Timescale, most: number, y: (rate: number) => number): void {
    const step = roundStep(most / 3);
    const rates = Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => index * step);
    attribute(this.grid, "d", rates.map((rate) => `M${scale.left} ${crisp(y(rate))}H${scale.right.toFixed(1)}`).join(""));
    for (const rate of rates) this.figures.put(scale.left - 6, y(rate) + 3.5, axisFigure(rate), "end");
    this.figures.done();
  }

  private drawAllowed(
    allowed: number | null,
    unit: RateUnit,
    scale: Timescale,
    y: (rate: number) => number,
    most: number,
    top: number,
  ): void {
    const isFar = allowed !== null && allowed > most;
    attribute(this.allowed, "d", allowed === null || isFar ? "" : `M${scale.left} ${crisp(y(allowed))}H${scale.right.toFixed(1)}`);
    if (allowed !== null) {
      // A window lets more through for a moment than its limit allows for long.
      const isPassed = most > allowed * HEADROOM * 1.05;
      const words = `${limit(allowed * unit.per_s)} ${unit.word} ${isPassed ? "in the long run" : "allowed"}`;
      const at = isFar ? top : y(allowed);
      this.label.put(scale.right - 4, at - top < 14 ? at + 13 : at - 5, isFar ? `\u2191 ${words}` : words, "end");
    }
    this.label.done();
  }
}

/** How much room the figures of the axis need. */
export function gutter({ bins, allowed_per_s, unit }: Rates): number {
  const most = topOf(bins, allowed_per_s) * unit.per_s;
  const step = roundStep(most / 3);
  return 8 + Math.max(...[1, 2, 3].map((index) => (index * step > most ? 0 : widthOf(axisFigure(index * step)))));
}

function topOf(bins: readonly Bin[], allowed: number | null): number {
  const most = Math.max(0, ...bins.map((bin) => bin.started_per_s));
  const shown = allowed !== null && (most === 0 || allowed <= FAR * most) ? allowed : 0;
  return (Math.max(most, shown) || 1) * HEADROOM;
}

/** The least of 1, 2 or 5 times a power of ten that is not below `value`. */
function roundStep(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5].find((round) => round * power >= value) ?? 10);
}

function axisFigure(value: number): string {
  return value >= 1000 ? limit(Math.round(value / 100) * 100).replace(/,000$/, "K") : figure(Number(value.toPrecision(3)));
}

/** A line of steps, one part for each stretch of time that is not cut. */
function outline(bins: readonly Bin[], scale: Timescale, y: (bin: Bin) => number): string[] {
  const parts: string[] = [];
  let end = -Infinity;
  for (const bin of bins) {
    const [from, to, at] = [scale.x(bin.from_s), scale.x(bin.to_s), y(bin).toFixed(1)];
    const step = `V${at}H${to.toFixed(1)}`;
    if (parts.length && from - end < CUT_PX / 2) parts[parts.length - 1] += step;
    else parts.push(`M${from.toFixed(1)} ${at}H${to.toFixed(1)}`);
    end = to;
  }
  return parts;
}

function closed(part: string, bottom: number): string {
  return `${part}V${bottom}H${part.slice(1).split(" ")[0]}Z`;
}

/** A thin line is sharp in the middle of a pixel. */
export function crisp(y: number): string {
  return (Math.floor(y) + 0.5).toFixed(1);
}

export function path(name: string): SVGPathElement {
  return svg("path", { class: prefixed(name) });
}
