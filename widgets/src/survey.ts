// Survey: what has to be known of all groups together, to lay out the few that are shown.
import { count, isDeadline } from "./format";
import type { Group } from "./schema";
import { shownStatus, type ShownStatus } from "./selection";

const COUNTDOWN = "47 h 59 m".length;

/** A column of the workload's own. */
export interface Extra {
  title: string;
  numeric: boolean;
  /** Characters of the longest value. */
  chars: number;
  /** Characters without which its values say nothing. */
  least: number;
  empty: boolean;
}

export interface Survey {
  counts: Map<ShownStatus, number>;
  extras: Extra[];
}

export function survey(groups: Iterable<Group>, titles: string[]): Survey {
  const counts = new Map<ShownStatus, number>();
  const ranges = titles.map(() => new Range());
  for (const group of groups) {
    const status = shownStatus(group);
    counts.set(status, (counts.get(status) ?? 0) + 1);
    for (let at = 0; at < titles.length; at += 1) ranges[at]!.take(group.extra[titles[at]!]);
  }
  return { counts, extras: titles.map((title, at) => ranges[at]!.extra(title)) };
}

/** The values of a column: only the outermost numbers are written out, since that is what costs time. */
class Range {
  private low = 0;
  private high = 0;
  private chars = 0;
  private numeric = true;
  private empty = true;
  private least = 3;

  take(value: string | number | undefined): void {
    if (value === undefined || value === "") return;
    this.empty = false;
    if (typeof value === "number") {
      this.low = Math.min(this.low, value);
      this.high = Math.max(this.high, value);
      if (!Number.isInteger(value)) this.chars = Math.max(this.chars, count(value).length);
    } else {
      this.numeric = false;
      if (isDeadline(value)) this.least = COUNTDOWN;
      this.chars = Math.max(this.chars, isDeadline(value) ? COUNTDOWN : value.length);
    }
  }

  extra(title: string): Extra {
    const chars = Math.max(this.chars, count(this.low).length, count(this.high).length);
    return { title, numeric: this.numeric, chars, least: this.least, empty: this.empty };
  }
}
