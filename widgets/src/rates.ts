// Rates: how many attempts a second there were, and when the breaker was open, from what the store knows.
import type { BreakerMove, Mark } from "./schema";
import { usualStep_s, type Span } from "./timescale";

export interface Bin extends Span {
  started_per_s: number;
  failed_per_s: number;
}

/** Marks of the counts, read at any moment: between two of them the counts grow evenly. */
class Growth {
  private index = 0;

  constructor(private readonly marks: readonly Mark[]) {}

  /** The counts at `at_s`, which never goes back from one call to the next. */
  at(at_s: number): { started: number; failed: number } {
    const { marks } = this;
    while (this.index < marks.length - 2 && marks[this.index + 1]!.at_s < at_s) this.index += 1;
    const from = marks[this.index]!;
    const to = marks[this.index + 1] ?? from;
    const share = Math.min(1, Math.max(0, (at_s - from.at_s) / (to.at_s - from.at_s || 1)));
    return {
      started: from.started + share * (to.started - from.started),
      failed: from.failed + share * (to.failed - from.failed),
    };
  }
}

/** Rates over equal spans of a power of two of seconds, at most about `most`: they stay the same while time goes on. */
export function rates(marks: readonly Mark[], spans: readonly Span[], most: number): Bin[] {
  const last = marks.at(-1);
  if (!last) return [];
  const total_s = spans.reduce((sum, span) => sum + span.to_s - span.from_s, 0);
  const width_s = 2 ** Math.max(0, Math.ceil(Math.log2(total_s / most || 1)));
  const growth = new Growth(marks);
  // Marks come late: that nothing is known yet of the latest moments is not yet a standstill.
  const late_s = Math.max(2 * width_s + 1, 1.5 * usualStep_s(marks));
  return spans.flatMap((span) => {
    const isKnown = span.to_s <= last.at_s || span.to_s - last.at_s > late_s;
    return binsOf(span, width_s, growth, isKnown ? span.to_s : Math.max(span.from_s, last.at_s));
  });
}

function binsOf({ from_s, to_s }: Span, width_s: number, growth: Growth, known_s: number): Bin[] {
  const count = Math.max(1, Math.round((known_s - from_s) / width_s));
  let before = growth.at(from_s);
  return Array.from({ length: count }, (_, index) => {
    const begin_s = from_s + index * width_s;
    const isLast = index === count - 1;
    const end_s = isLast ? known_s : begin_s + width_s;
    const after = growth.at(end_s);
    const seconds = Math.max(end_s - begin_s, 0.001);
    const [started, failed] = [after.started - before.started, after.failed - before.failed];
    before = after;
    return { from_s: begin_s, to_s: isLast ? to_s : end_s, started_per_s: started / seconds, failed_per_s: failed / seconds };
  });
}

/** The spans in which the breaker was not closed. */
export function openings(moves: readonly BreakerMove[], to_s: number): Span[] {
  const spans: Span[] = [];
  const open = new Map<string, number>(); // since when, of each limit group
  for (const { state, at_s, limit_group } of moves) {
    const from_s = open.get(limit_group);
    if (state !== "closed") open.set(limit_group, from_s ?? at_s);
    else if (from_s !== undefined) {
      spans.push({ from_s, to_s: at_s });
      open.delete(limit_group);
    }
  }
  return [...spans, ...[...open.values()].map((from_s) => ({ from_s, to_s: Math.max(from_s, to_s) }))];
}

/** Attempts per second over the time in which work was done. */
export function average(marks: readonly Mark[], spans: readonly Span[]): number {
  const seconds = spans.reduce((sum, span) => sum + span.to_s - span.from_s, 0);
  return ((marks.at(-1)?.started ?? 0) - (marks[0]?.started ?? 0)) / (seconds || 1);
}
