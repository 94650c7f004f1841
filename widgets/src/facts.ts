// Facts: what is allowed, what guards, what is used up, what it costs. Each is a title, a figure and a foot.
import { attribute, clipped, h, hidden, text, width } from "./dom";
import { clock, count, figure, limit, NONE, rateUnit, span, usd, type RateUnit } from "./format";
import type { BreakerFact, Head, WindowFact } from "./schema";
import { Spark } from "./spark";
import { ended } from "./store";

/** More than these are told by the number alone. */
const PIPS = 8;

class Fact {
  private readonly title = h("div", "title");
  readonly value = h("b");
  readonly aside = h("small");
  readonly foot = h("small", "foot");
  readonly node: HTMLElement;

  constructor(name: string, ...more: Node[]) {
    this.node = h("div", `fact ${name}`, this.title, h("div", "value", this.value, this.aside, ...more), this.foot);
  }

  patch(title: string, value: string, aside = "", foot = ""): void {
    text(this.title, title);
    text(this.value, value);
    text(this.aside, aside);
    clipped(this.foot, foot);
  }
}

/** A thin bar that fills up. */
class Meter {
  private readonly fill = h("i", "run");
  readonly node = h("div", "mini", this.fill);

  patch(share: number | null): void {
    hidden(this.node, share === null);
    width(this.fill, share ?? 0);
  }
}

export class Facts {
  readonly spark = new Spark();
  private readonly rate = new Fact("rate");
  private readonly pips = h("span", "pips");
  private readonly breaker = new Fact("breaker", this.pips);
  private readonly window = new Fact("window");
  private readonly windowMeter = new Meter();
  private readonly last = new Fact("last");
  private readonly lastMeter = new Meter();
  readonly node = h("div", "facts", this.rate.node, this.breaker.node, this.window.node, this.last.node);

  constructor() {
    this.pips.setAttribute("aria-hidden", "true");
    this.rate.foot.replaceWith(this.spark.node);
    this.window.foot.before(this.windowMeter.node);
    this.last.foot.before(this.lastMeter.node);
  }

  patch(head: Head, passed_s: number): void {
    this.patchRate(head);
    this.patchBreaker(head.breaker, head.state === "running" ? passed_s : 0, ended(head.state));
    if (head.untold) this.hideBreaker();
    this.patchWindows(head.windows, head.state === "running" && !head.untold);
    if (head.spent_usd === null) this.patchJournal(head);
    else this.patchSpent(head.spent_usd, head.budget_usd);
  }

  private patchRate(head: Head): void {
    const over = ended(head.state);
    const unit = rateUnit(Math.max(head.rate_per_s, head.allowed_per_s ?? 0));
    const quiet = head.rate_per_s === 0 && head.state !== "running";
    const allowed = head.allowed_per_s === null ? unit.word : allowedWords(head, unit);
    const value = quiet ? NONE : figure(head.rate_per_s * unit.per_s);
    this.rate.patch(over ? "Average rate" : "Rate now", value, quiet && head.allowed_per_s === null ? "" : allowed);
    this.spark.draw(head.allowed_per_s);
  }

  private patchBreaker(breaker: BreakerFact, passed_s: number, over: boolean): void {
    const { state, threshold } = breaker;
    attribute(this.breaker.node, "data-is", threshold ? state : "none");
    this.breaker.patch("Breaker", threshold ? state.replace("_", " ") : "none", "", breakerFoot(breaker, passed_s, over));
    const pips = threshold > 0 && threshold <= PIPS ? threshold : 0;
    while (this.pips.childElementCount < pips) this.pips.append(h("i"));
    while (this.pips.childElementCount > pips) this.pips.lastElementChild!.remove();
    const on = state === "open" ? threshold : breaker.failures;
    [...this.pips.children].forEach((pip, index) => attribute(pip, "data-on", index < on ? "" : null));
  }

  /** Another process's is not on record. */
  private hideBreaker(): void {
    attribute(this.breaker.node, "data-is", "none");
    this.breaker.patch("Breaker", NONE, "", "");
    this.pips.replaceChildren();
  }

  /** Only a session that runs here knows its windows. */
  private patchWindows(windows: WindowFact[], runs: boolean): void {
    const [fullest, ...others] = [...windows].sort((a, b) => b.used / b.limit - a.used / a.limit);
    if (!fullest) this.window.patch("Windows", runs ? "none" : NONE, "", runs ? "no rate limit" : "");
    else this.window.patch("Windows", limit(fullest.used), ofLimit(fullest), others.map(windowWords).join(", "));
    attribute(this.window.node, "data-is", fullest ? null : "none");
    this.windowMeter.patch(fullest ? fullest.used / fullest.limit : null);
  }

  private patchSpent(spent: number, budget: number | null): void {
    this.last.patch("Spent", usd(spent), budget === null ? "" : `of ${usd(budget)}`);
    this.lastMeter.patch(budget ? spent / budget : null);
  }

  private patchJournal(head: Head): void {
    const foot = head.state === "rolled_back" ? "rolled back: nothing kept" : "kept for a resume";
    this.last.patch("Journal", count(head.recorded), "recorded", foot);
    this.lastMeter.patch(null);
  }
}

/** A long window that is not full yet lets more through than it does in the long run. */
function allowedWords(head: Head, unit: RateUnit): string {
  const words = `${limit(head.allowed_per_s! * unit.per_s)} ${unit.word}`;
  return head.rate_per_s > head.allowed_per_s! * 1.1 ? `${unit.word}, ${words} in the long run` : `of ${words}`;
}

function ofLimit(window: WindowFact): string {
  const unit = window.unit === "requests" ? "" : ` ${window.unit}`;
  return `of ${limit(window.limit)}${unit} / ${span(window.per_s)}`;
}

function windowWords(window: WindowFact): string {
  return `${limit(window.used)} ${ofLimit(window)}`;
}

function breakerFoot(breaker: BreakerFact, passed_s: number, over: boolean): string {
  if (breaker.threshold === 0) return "";
  const whose = breaker.limit_group;
  const opened = breaker.openings ? `opening ${breaker.openings} of ${breaker.give_up_after}` : "";
  if (breaker.state === "half_open") return [whose, "one probe running", opened].filter(Boolean).join(", ");
  if (breaker.state === "open") {
    const left = breaker.probe_in_s - passed_s;
    const probe = over ? "" : left > 0 ? `probe in ${clock(Math.ceil(left))}` : "probe is due";
    return [whose, probe, opened].filter(Boolean).join(", ");
  }
  if (breaker.failures) return [whose, `${breaker.failures} of ${breaker.threshold} failures in a row`].filter(Boolean).join(", ");
  return breaker.openings ? `closed again after ${breaker.openings} of ${breaker.give_up_after}` : "no failures in a row";
}
