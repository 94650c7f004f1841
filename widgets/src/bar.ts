// Bar: how far a session is, in its shares.
import { attribute, h, width } from "./dom";
import { count } from "./format";
import type { Counts, State } from "./schema";
import { done, ended, tried } from "./store";

const SHARES: [string, (counts: Counts) => number][] = [
  ["ok", (counts) => counts.completed],
  ["bad", (counts) => counts.failed + counts.timeout],
  ["skip", (counts) => counts.skipped + counts.cancelled],
  ["run", (counts) => counts.running],
];

export class Bar {
  private readonly shares = SHARES.map(([name]) => h("i", name));
  readonly node = h("div", "bar", ...this.shares);

  constructor() {
    this.node.setAttribute("role", "progressbar");
    this.node.setAttribute("aria-valuemin", "0");
  }

  patch(name: string, state: State, counts: Counts): void {
    const { total } = counts;
    const over = Math.max(total ?? 0, done(counts) + counts.running);
    SHARES.forEach(([, share], index) => {
      const value = share(counts);
      const node = this.shares[index]!;
      width(node, total !== null && over ? value / over : 0);
      attribute(node, "data-none", value && total !== null ? null : "");
    });
    attribute(this.node, "data-open", total === null && !ended(state) ? "" : null);
    attribute(this.node, "aria-label", name);
    attribute(this.node, "aria-valuemax", total === null ? null : String(total));
    attribute(this.node, "aria-valuenow", total === null ? null : String(done(counts)));
    attribute(this.node, "aria-valuetext", ofTotal(counts));
  }
}

/** `315 of 500 done`. */
export function ofTotal(counts: Counts): string {
  const figure = count(tried(counts));
  return counts.total === null ? `${figure} done` : `${figure} of ${count(counts.total)} done`;
}
