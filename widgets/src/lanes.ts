// Lanes: groups that overlap in time lie one under the other, as few lanes as can be.
import type { Group } from "./schema";
import { shownStatus, type ShownStatus } from "./selection";

export interface Bar {
  group: Group;
  lane: number;
  from_s: number;
  to_s: number;
}

/** More lanes, or more bars, than these are not told apart. */
export const MOST_LANES = 12;
export const MOST_BARS = 120;

/** Each group in the first lane that is free when it starts; null when there are too many to tell apart. */
export function lanes(groups: ReadonlyMap<number, Group>, to_s: number): Bar[] | null {
  if (groups.size > MOST_BARS) return null;
  const begun = [...groups.values()].filter((group) => group.started_s > 0).sort((a, b) => a.started_s - b.started_s);
  const free_s: number[] = [];
  const bars = begun.map((group) => {
    const end_s = endOf(group, to_s);
    const found = free_s.findIndex((free) => free <= group.started_s);
    const lane = found < 0 ? free_s.length : found;
    free_s[lane] = end_s;
    return { group, lane, from_s: group.started_s, to_s: end_s };
  });
  return free_s.length > MOST_LANES ? null : bars;
}

/** From the bottom of a column to its top. */
export const STACK: ShownStatus[] = ["failed", "timeout", "partly", "cancelled", "skipped", "pending", "running", "completed"];

/** How many groups of each status were at work in each of `count` columns. */
export function columns(
  groups: ReadonlyMap<number, Group>,
  to_s: number,
  count: number,
  columnOf: (at_s: number) => number,
): Map<ShownStatus, number[]> {
  // Where one begins and where it ends; summing up along the columns gives how many there are.
  const steps = new Map(STACK.map((status) => [status, new Array<number>(count + 1).fill(0)]));
  const clamp = (column: number): number => Math.min(count - 1, Math.max(0, Math.floor(column)));
  for (const group of groups.values()) {
    if (group.started_s <= 0) continue;
    const step = steps.get(shownStatus(group))!;
    step[clamp(columnOf(group.started_s))]! += 1;
    step[clamp(columnOf(endOf(group, to_s))) + 1]! -= 1;
  }
  for (const [status, step] of steps) {
    let sum = 0;
    steps.set(status, step.slice(0, count).map((change) => (sum += change)));
  }
  return steps;
}

function endOf(group: Group, to_s: number): number {
  return Math.max(group.started_s, group.ended_s || to_s);
}
