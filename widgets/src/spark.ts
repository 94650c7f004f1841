// Spark: the rate as a small line, under the dashed line of what is allowed: of the last minute while the session
// runs, of the whole run while that is shorter, and once it has ended.
//
// It is drawn from the session's own marks, so a panel that was reopened has it too, and one that hears no more
// stands still.
import { attribute, prefixed, svg } from "./dom";
import type { Head, Mark } from "./schema";
import { ended } from "./store";

const POINTS = 60;
const LATELY_S = 60;
/** What "Rate now" is the average of. */
const SPAN_S = 20;
/** Of a run that has ended, each point is the average of this share of it. */
const SHARE = 1 / 20;
const WIDTH = 120;
const HEIGHT = 22;
const PAD = 1.5;

export class Spark {
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

  draw(head: Head, pace: readonly Mark[]): void {
    const rates = ratesOf(head, pace);
    const { allowed_per_s: allowed } = head;
    const top = Math.max(...rates, allowed ?? 0) * 1.08 || 1;
    const y = (rate: number): string => (HEIGHT - PAD - (rate / top) * (HEIGHT - 2 * PAD)).toFixed(1);
    const points = rates.map((rate, index) => `${((index * WIDTH) / (rates.length - 1)).toFixed(1)} ${y(rate)}`);
    const line = points.length ? `M${points.join("L")}` : "";
    attribute(this.line, "d", line);
    attribute(this.area, "d", line && `${line}V${HEIGHT}H0Z`);
    attribute(this.allowed, "d", allowed === null ? "" : `M0 ${y(allowed)}H${WIDTH}`);
  }
}

/** Items ended per second, evenly over what is shown; nothing before there is a second to show. */
export function ratesOf(head: Head, pace: readonly Mark[]): number[] {
  const over = ended(head.state);
  const [first, last] = [pace[0], pace[pace.length - 1]];
  if (!first || !last || head.started_s === 0) return [];
  const to_s = over ? last.at_s : head.at_s;
  const begun_s = head.started_s < to_s ? head.started_s : first.at_s;
  const from_s = over ? begun_s : Math.max(begun_s, to_s - LATELY_S);
  if (to_s - from_s < 1) return [];
  const span_s = over ? Math.max(1, (to_s - from_s) * SHARE) : SPAN_S;
  const step_s = (to_s - from_s) / POINTS;
  const marks = head.state === "running" ? upTo(head, pace, begun_s) : pace;
  const rates = Array.from({ length: POINTS }, (_, index) => {
    const at_s = from_s + (index + 1) * step_s;
    const since_s = Math.max(begun_s, at_s - span_s);
    return Math.max(0, endedBy(marks, at_s) - endedBy(marks, since_s)) / Math.max(1, at_s - since_s);
  });
  return rates;
}

/** The marks, which are up to a second behind, and one for the figure beside the line: so the line ends at that. */
function upTo({ at_s, rate_per_s }: Head, pace: readonly Mark[], begun_s: number): readonly Pick<Mark, "at_s" | "ended">[] {
  const since_s = Math.max(begun_s, at_s - SPAN_S);
  const ended = endedBy(pace, since_s) + rate_per_s * Math.max(1, at_s - since_s);
  const last = pace[pace.length - 1]!;
  return at_s > last.at_s ? [...pace, { at_s, ended: Math.max(last.ended, ended) }] : pace;
}

/** How many items had ended at a time; between two marks as if one after the other. */
function endedBy(pace: readonly Pick<Mark, "at_s" | "ended">[], at_s: number): number {
  let [low, high] = [0, pace.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (pace[middle]!.at_s <= at_s) low = middle + 1;
    else high = middle;
  }
  const [before, after] = [pace[low - 1], pace[low]];
  if (!before) return pace[0]!.ended;
  if (!after || after.at_s <= before.at_s) return before.ended;
  return before.ended + ((after.ended - before.ended) * (at_s - before.at_s)) / (after.at_s - before.at_s);
}
