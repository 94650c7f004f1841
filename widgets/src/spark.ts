// Spark: the rate of the last minute as a small line, under the dashed line of what is allowed.
// The history is this page's own: a panel that was closed starts a new one.
import { attribute, prefixed, svg } from "./dom";

const SAMPLES = 60;
const WIDTH = 120;
const HEIGHT = 22;
const PAD = 1.5;

export class Spark {
  private readonly samples: number[] = [];
  private second = -Infinity;
  private readonly allowed = svg("path", { class: prefixed("allowed") });
  private readonly line = svg("path", { class: prefixed("rate") });
  private readonly area = svg("path", { class: prefixed("area") });
  readonly node = svg(
    "svg",
    { class: prefixed("spark"), viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    this.area,
    this.allowed,
    this.line,
  );

  /** Take in the rate at `now_s`; within a second the latest one stands. */
  add(rate: number, now_s: number): void {
    const second = Math.floor(now_s);
    if (second === this.second) this.samples.pop();
    this.second = second;
    this.samples.push(rate);
    if (this.samples.length > SAMPLES) this.samples.shift();
  }

  draw(allowed: number | null): void {
    const top = Math.max(...this.samples, allowed ?? 0) * 1.08 || 1;
    const y = (rate: number): string => (HEIGHT - PAD - (rate / top) * (HEIGHT - 2 * PAD)).toFixed(1);
    const step = WIDTH / (SAMPLES - 1);
    const start = WIDTH - (this.samples.length - 1) * step;
    const points = this.samples.map((rate, index) => `${(start + index * step).toFixed(1)} ${y(rate)}`);
    const line = points.length > 1 ? `M${points.join("L")}` : "";
    attribute(this.line, "d", line);
    attribute(this.area, "d", line && `${line}V${HEIGHT}H${start.toFixed(1)}Z`);
    attribute(this.allowed, "d", allowed === null ? "" : `M0 ${y(allowed)}H${WIDTH}`);
  }
}
