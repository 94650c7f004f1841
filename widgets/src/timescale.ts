// Timescale: from Unix time to pixels and back. Long spans in which no process worked are cut to a few pixels.
//
//   time    |--- worked ---|............ idle ............|- worked -|
//   pixels  |------------------------|//|-----------------|
import type { Mark } from "./schema";

export interface Span {
  from_s: number;
  to_s: number;
}

export interface Tick {
  x: number;
  words: string;
}

interface Piece extends Span {
  x: number;
}

/** How wide a cut is. */
export const CUT_PX = 22;
const CUT_FROM_S = 600;
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
const SECONDS = [0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 15, 30];
const MINUTES = [1, 2, 3, 5, 10, 15, 30].map((minutes) => minutes * MINUTE);
const LONGER = [HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, ...[1, 2, 4, 7, 14, 28, 56, 112].map((days) => days * DAY)];
/** No step is more than about twice the one before it: so there is always one that gives three to six ticks. */
const STEPS = [...SECONDS, ...MINUTES, ...LONGER];

/** The spans from `from_s` to `to_s` without those, long beside the rest, in which the counts stood still. */
export function worked(marks: readonly Mark[], from_s: number, to_s: number): Span[] {
  const long_s = Math.max(CUT_FROM_S, 20 * usualStep_s(marks), (to_s - from_s) / 5);
  const spans: Span[] = [];
  let begun_s = from_s;
  marks.forEach((mark, index) => {
    const next = marks[index + 1];
    const next_s = next?.at_s ?? to_s;
    const stood = !next || (next.started === mark.started && next.ended === mark.ended);
    if (!stood || next_s - mark.at_s <= long_s) return;
    spans.push({ from_s: begun_s, to_s: mark.at_s });
    begun_s = next_s;
  });
  return [...spans, { from_s: begun_s, to_s }];
}

/** Seconds from one mark to the next: the median. */
export function usualStep_s(marks: readonly Mark[]): number {
  const steps = marks.slice(1).map((mark, index) => mark.at_s - marks[index]!.at_s);
  return steps.sort((a, b) => a - b)[steps.length >> 1] ?? 0;
}

export class Timescale {
  readonly pieces: Piece[];
  private readonly px_per_s: number;

  constructor(spans: readonly Span[], readonly left: number, readonly right: number) {
    const worked_s = spans.reduce((sum, span) => sum + span.to_s - span.from_s, 0);
    this.px_per_s = (right - left - CUT_PX * (spans.length - 1)) / (worked_s || 1);
    let x = left;
    this.pieces = spans.map((span) => {
      const piece = { ...span, x };
      x += (span.to_s - span.from_s) * this.px_per_s + CUT_PX;
      return piece;
    });
  }

  x(at_s: number): number {
    // A plain loop: it is asked for every group of thousands.
    let index = this.pieces.length - 1;
    while (index > 0 && this.pieces[index]!.from_s > at_s) index -= 1;
    const piece = this.pieces[index]!;
    const inside_s = Math.min(Math.max(at_s, piece.from_s), piece.to_s) - piece.from_s;
    return piece.x + inside_s * this.px_per_s;
  }

  at_s(x: number): number {
    const piece = this.pieces.findLast((piece) => piece.x <= x) ?? this.pieces[0]!;
    return Math.min(piece.to_s, piece.from_s + Math.max(0, x - piece.x) / this.px_per_s);
  }

  /** Where time is cut, as the left ends of the cuts, and how long each is. */
  cuts(): { x: number; seconds: number }[] {
    return this.pieces.slice(1).map((piece, index) => {
      return { x: piece.x - CUT_PX, seconds: piece.from_s - this.pieces[index]!.to_s };
    });
  }

  /** At most `most` round local times. */
  ticks(most: number): Tick[] {
    const step_s = STEPS.find((step_s) => this.multiples(step_s).length <= most) ?? STEPS.at(-1)!;
    const days = new Set(this.pieces.flatMap(({ from_s, to_s }) => [dayOf(from_s), dayOf(to_s)]));
    let day = "";
    return this.multiples(step_s).map((at_s) => {
      const before = day;
      day = dayOf(at_s);
      return { x: this.x(at_s), words: tickWords(at_s, step_s, days.size > 1 && day !== before) };
    });
  }

  private multiples(step_s: number): number[] {
    const most = 64;
    const offset_s = new Date(this.pieces[0]!.from_s * 1000).getTimezoneOffset() * MINUTE;
    return this.pieces.flatMap(({ from_s, to_s }) => {
      const first = Math.ceil((from_s - offset_s) / step_s);
      const last = Math.floor((to_s - offset_s) / step_s);
      const length = Math.max(0, Math.min(most, last - first + 1));
      return Array.from({ length }, (_, index) => (first + index) * step_s + offset_s);
    });
  }
}

function dayOf(at_s: number): string {
  return new Date(Math.round(at_s * 1000)).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
}

function tickWords(at_s: number, step_s: number, newDay: boolean): string {
  if (step_s >= DAY) return dayOf(at_s);
  const time = timeOfDay(at_s, step_s);
  if (!newDay) return time;
  return time === "00:00" ? dayOf(at_s) : `${dayOf(at_s)} ${time}`;
}

/** Local time, as exact as a step needs: `08:14`, `08:14:53`, `08:14:53.25`. */
export function timeOfDay(at_s: number, step_s = 1): string {
  const date = new Date(Math.round(at_s * 1000));
  const pairs = [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0"));
  if (step_s >= MINUTE) return pairs.slice(0, 2).join(":");
  const digits = step_s >= 1 ? 0 : step_s >= 0.1 ? 1 : 2;
  const parts = String(date.getMilliseconds()).padStart(3, "0").slice(0, digits);
  return pairs.join(":") + (parts && `.${parts}`);
}
