// Facts: the row above the tables: how fast it goes, what the work tells of itself, what guards it, what it costs.
// Rule: what cannot vary, or is not known, is not drawn; what is drawn stays in its place while the session runs.
import { attribute, clipped, h, hidden, text, width } from "./dom";
import { clock, count, figure, limit, moments, NONE, perWords, rateUnit, usd, type RateUnit } from "./format";
import type { BreakerFact, BreakerMove, Fact, Head, WindowFact } from "./schema";
import { Spark } from "./spark";
import type { Store } from "./store";
import { ended, tried } from "./store";

/** More than these are told by the number alone. */
const PIPS = 8;
/** More facts are too many to read at a glance. */
const MOST = 5;

export type Name = "rate" | "work" | "spent" | "window" | "breaker" | "journal";
/** In the order in which they stand, and in that in which they are given up where there are too many. */
const PLACES: Name[] = ["rate", "spent", "work", "window", "breaker", "journal"];
const LEAST: Name[] = ["journal", "breaker", "window", "rate"];

/** A cell of the row. */
class Cell {
  private readonly title = h("div", "title");
  private readonly value = h("b");
  private readonly aside = h("small");
  private readonly meter = new Meter();
  readonly foot = h("small", "foot");
  readonly node: HTMLElement;

  constructor(name: string, ...more: Node[]) {
    const figures = h("div", "value", this.value, this.aside, ...more);
    this.node = h("div", `fact ${name}`, this.title, figures, this.meter.node, this.foot);
  }

  patch(title: string, value: string, aside = "", foot = "", share: number | null = null): void {
    text(this.title, title);
    clipped(this.value, value);
    clipped(this.aside, aside);
    clipped(this.foot, foot);
    this.meter.patch(share);
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
  private readonly spark = new Spark();
  private readonly rate = new Cell("rate");
  private readonly pips = h("span", "pips");
  private readonly breaker = new Cell("breaker", this.pips);
  private readonly window = new Cell("window");
  private readonly spent = new Cell("spent");
  private readonly journal = new Cell("journal");
  private readonly work: Cell[] = [];
  private shown = "";
  readonly node = h("div", "facts");

  constructor() {
    this.pips.setAttribute("aria-hidden", "true");
    this.rate.foot.replaceWith(this.spark.node);
  }

  /** `passed_s` are the seconds since the head was sent; of a session that is `gone` nothing holds now. */
  patch({ head, pace, moves }: Pick<Store, "pace" | "moves"> & { head: Head }, passed_s: number, gone = false): void {
    const names = shownOf(head, moves);
    this.place(names, head.facts.length);
    if (names.includes("rate")) this.patchRate(head, !names.includes("breaker"), pace, gone);
    if (names.includes("breaker")) this.patchBreaker(head.breaker, moves, head.state === "running" ? passed_s : 0, ended(head.state));
    if (names.includes("window")) this.patchWindows(head, gone);
    if (names.includes("spent")) this.patchSpent(head.spent_usd ?? 0, head.budget_usd);
    if (names.includes("journal")) this.patchJournal(head);
    head.facts.forEach((fact, index) => patchFact(this.work[index]!, fact, head.at_s + passed_s));
  }

  /** Let the cells stand that are shown; most of the time they do. */
  private place(names: Name[], works: number): void {
    const shown = `${names.join(" ")} ${works}`;
    if (shown === this.shown) return;
    this.shown = shown;
    while (this.work.length < works) this.work.push(new Cell("work"));
    const cells = names.flatMap((name) => (name === "work" ? this.work.slice(0, works) : [this[name]]));
    this.node.replaceChildren(...cells.map((cell) => cell.node));
    attribute(this.node, "data-many", String(cells.length));
    hidden(this.node, cells.length === 0);
  }

  private patchRate(head: Head, tellsBreaker: boolean, pace: Store["pace"], gone: boolean): void {
    const over = ended(head.state);
    const unit = rateUnit(Math.max(head.rate_per_s, head.allowed_per_s ?? 0));
    const quiet = head.rate_per_s === 0 && head.state !== "running";
    const allowed = head.allowed_per_s === null ? `per ${unit.name}` : allowedWords(head, unit);
    const open = tellsBreaker && !over && head.breaker.threshold > 0 && head.breaker.state !== "closed";
    attribute(this.rate.node, "data-tone", open ? "warn" : null);
    const aside = open ? `breaker ${head.breaker.state.replace("_", " ")}` : quiet && head.allowed_per_s === null ? "" : allowed;
    this.rate.patch(over ? "Average rate" : gone ? "Last rate" : "Rate now", quiet ? NONE : figure(head.rate_per_s * unit.per_s), aside);
    attribute(this.rate.node, "title", over ? "Items a second, over the whole run" : "Items a second, of the last minute");
    this.spark.draw(head, pace);
  }

  private patchBreaker(breaker: BreakerFact, moves: readonly BreakerMove[], passed_s: number, over: boolean): void {
    const { state, threshold } = breaker;
    attribute(this.breaker.node, "data-is", state);
    this.breaker.patch("Breaker", state.replace("_", " "), "", breakerFoot(breaker, moves, passed_s, over));
    const pips = threshold <= PIPS && !over ? threshold : 0;
    while (this.pips.childElementCount < pips) this.pips.append(h("i"));
    while (this.pips.childElementCount > pips) this.pips.lastElementChild!.remove();
    const on = state === "open" ? threshold : breaker.failures;
    [...this.pips.children].forEach((pip, index) => attribute(pip, "data-on", index < on ? "" : null));
  }

  private patchWindows({ windows, state }: Head, gone: boolean): void {
    const [fullest, ...others] = [...windows].sort((a, b) => b.used / b.limit - a.used / a.limit);
    const used = state === "planned" ? NONE : limit(fullest!.used);
    const room = state === "planned" || gone ? "" : roomWords(fullest!);
    const foot = others.length ? others.map(windowWords).join(", ") : room;
    this.window.patch("Limit used", used, ofLimit(fullest!), foot, fullest!.used / fullest!.limit);
  }

  private patchSpent(spent: number, budget: number | null): void {
    this.spent.patch("Spent", usd(spent), budget === null ? "" : `of ${usd(budget)}`, "", budget ? spent / budget : null);
  }

  private patchJournal(head: Head): void {
    const foot = head.state === "rolled_back" ? "rolled back: nothing kept" : "kept for a resume";
    this.journal.patch("Journal", count(head.recorded), "recorded", foot);
  }
}

/** What can vary and is known, in the order in which it stands. */
export function shownOf(head: Head, moves: readonly BreakerMove[]): Name[] {
  const over = ended(head.state);
  const can: Record<Name, boolean> = {
    rate: !over || (head.rate_per_s > 0 && tried(head.counts) > 0),
    work: head.facts.length > 0,
    spent: head.spent_usd !== null,
    window: !over && !head.untold && head.windows.length > 0,
    breaker: head.breaker.threshold > 0 && !head.untold && (!over || hasOpened(head.breaker, moves)),
    journal: head.state === "rolled_back" || (head.facts.length === 0 && head.spent_usd === null),
  };
  const shown = new Set(PLACES.filter((name) => can[name]));
  const many = (): number => shown.size + Math.max(0, head.facts.length - 1);
  for (const name of LEAST) if (many() > MOST) shown.delete(name);
  return PLACES.filter((name) => shown.has(name));
}

function hasOpened(breaker: BreakerFact, moves: readonly BreakerMove[]): boolean {
  return breaker.state !== "closed" || breaker.openings > 0 || moves.some((move) => move.state === "open");
}

function patchFact(cell: Cell, fact: Fact, now_s: number): void {
  cell.patch(fact.title, moments(fact.value, now_s), moments(fact.aside, now_s), moments(fact.foot, now_s), fact.share);
  attribute(cell.node, "data-tone", fact.tone || null);
}

/** A long window that is not full yet lets more through than it does in the long run. */
function allowedWords(head: Head, unit: RateUnit): string {
  const words = `${limit(head.allowed_per_s! * unit.per_s)} per ${unit.name}`;
  return head.rate_per_s > head.allowed_per_s! * 1.1 ? `per ${unit.name}, ${limit(head.allowed_per_s! * unit.per_s)} in the long run` : `of ${words}`;
}

function ofLimit(window: WindowFact): string {
  const unit = window.unit === "requests" ? "" : ` ${window.unit}`;
  return `of ${limit(window.limit)}${unit} ${perWords(window.per_s)}`;
}

function windowWords(window: WindowFact): string {
  return `${limit(window.used)} ${ofLimit(window)}`;
}

function roomWords({ used, limit: most, unit }: WindowFact): string {
  const left = Math.max(0, most - used);
  const word = unit === "requests" && left === 1 ? "request" : unit;
  return left > 0 ? `room for ${limit(left)} ${word} now` : "full: the next waits";
}

function breakerFoot(breaker: BreakerFact, moves: readonly BreakerMove[], passed_s: number, over: boolean): string {
  const whose = breaker.limit_group;
  const opened = breaker.openings ? `opening ${breaker.openings} of ${breaker.give_up_after}` : "";
  if (over) {
    const times = Math.max(breaker.openings, moves.filter((move) => move.state === "open").length);
    return [whose, times ? `opened ${times === 1 ? "once" : `${count(times)} times`}` : ""].filter(Boolean).join(", ");
  }
  if (breaker.state === "half_open") return [whose, "one probe running", opened].filter(Boolean).join(", ");
  if (breaker.state === "open") {
    const left = breaker.probe_in_s - passed_s;
    return [whose, left > 0 ? `probe in ${clock(Math.ceil(left))}` : "probe is due", opened].filter(Boolean).join(", ");
  }
  if (breaker.failures) return [whose, `${breaker.failures} of ${breaker.threshold} failures in a row`].filter(Boolean).join(", ");
  return breaker.openings ? `closed again after ${breaker.openings} of ${breaker.give_up_after}` : "no failures in a row";
}
