// Breaker: the circuit breaker with its history, and how full each limit is.
import { attribute, focusable, h, hidden, prefixed, svg, text, width } from "./dom";
import { clock, count, limit, NONE, span } from "./format";
import { icon } from "./icons";
import type { Context, Piece } from "./piece";
import type { BreakerFact, BreakerMove, BreakerState, Head, LimitGroupFact, WindowFact } from "./schema";
import { ended } from "./store";
import { timeOfDay } from "./timescale";

/** More than these are told by the number alone. */
const PIPS = 10;
/** More than these do not fit without scrolling. */
const MOVES_SHOWN = 5;
/** More processes that use the same resource are counted. */
const SHARING_SHOWN = 1;
/** Of limits and a breaker of another process. */
const UNTOLD = "Not on record.";
const AT_ONCE = "at a time";
const PRIORITIES = ["high", "medium", "low"];

export type Is = BreakerState | "none";

/** A switch: two ends, and a lever that closes the circuit or not. */
const ENDS = "M.8 7H2.2M9.8 7H11.2M4.4 7A1.1 1.1 0 1 1 2.2 7A1.1 1.1 0 1 1 4.4 7M9.8 7A1.1 1.1 0 1 1 7.6 7A1.1 1.1 0 1 1 9.8 7";
const LEVERS: Record<Is, string> = { closed: "M4.4 7H7.6", half_open: "M4.3 6.4L8.2 4.2", open: "M4.1 6.1L7.2 1.8", none: "" };

const MEANS: Record<Is, string> = {
  closed: "Attempts start normally.",
  half_open: "One probe attempt runs; all others wait.",
  open: "No attempts until a probe succeeds.",
  none: "",
};

export class BreakerPiece implements Piece {
  private readonly state = new StateFact();
  private readonly history = new History();
  private readonly limiter = new Limiter();
  readonly node = h("div", "guards", this.state.node, this.history.node, this.limiter.node);

  constructor(private readonly context: Context) {}

  render(now_s: number): void {
    const { store } = this.context;
    const head = store.head!;
    const passed_s = store.passed_s(now_s);
    this.state.patch(head.breaker, head.state === "running" ? passed_s : 0, ended(head.state));
    if (head.untold) this.state.hide();
    this.history.patch(store.moves, head.untold ? UNTOLD : head.breaker.threshold > 0 ? "It has not opened." : "There is no breaker.");
    this.limiter.patch(head, ended(head.state) ? Infinity : passed_s);
  }
}

/** Where the breaker stands, in a word, and how far it is from the next state. */
class StateFact {
  private readonly title = h("div", "title");
  private readonly sign = lever();
  private readonly word = h("b");
  private readonly means = h("p", "means");
  private readonly pips = h("span", "pips");
  private readonly failures = h("span");
  private readonly openings = h("span");
  private readonly probe = h("span");
  private readonly rows: HTMLElement;
  readonly node: HTMLElement;

  constructor() {
    this.pips.setAttribute("aria-hidden", "true");
    const rows: [string, Node[]][] = [
      ["Failures in a row", [this.failures, this.pips]],
      ["Openings", [this.openings]],
      ["Next probe", [this.probe]],
    ];
    this.rows = h("dl", "", ...rows.flatMap(([name, value]) => [h("dt", "", name), h("dd", "", ...value)]));
    this.node = h("section", "guard", this.title, h("div", "value", this.sign, this.word), this.means, this.rows);
  }

  patch(breaker: BreakerFact, passed_s: number, over: boolean): void {
    const { state, failures, threshold, openings, give_up_after } = breaker;
    const is = threshold ? state : "none";
    attribute(this.node, "data-is", is);
    text(this.title, breaker.limit_group ? `Breaker of ${breaker.limit_group}` : "Breaker");
    setLever(this.sign, is);
    text(this.word, is.replace("_", " "));
    text(this.means, over ? "" : MEANS[is]);
    hidden(this.rows, is === "none");
    text(this.failures, failures > threshold ? `${count(failures)}, opens at ${count(threshold)}` : `${count(failures)} of ${count(threshold)}`);
    text(this.openings, `${count(openings)} of ${count(give_up_after)}`);
    text(this.probe, probeWords(breaker, passed_s, over));
    const pips = threshold <= PIPS && failures <= threshold ? threshold : 0;
    while (this.pips.childElementCount < pips) this.pips.append(h("i"));
    while (this.pips.childElementCount > pips) this.pips.lastElementChild!.remove();
    [...this.pips.children].forEach((pip, index) => attribute(pip, "data-on", index < failures ? "" : null));
  }

  /** It is another process's. */
  hide(): void {
    attribute(this.node, "data-is", "none");
    setLever(this.sign, "none");
    text(this.word, NONE);
    text(this.means, UNTOLD);
    hidden(this.rows, true);
  }
}

/** What the breaker did, the latest first. */
class History {
  private readonly list = h("ol", "moves");
  private readonly empty = h("p", "means");
  readonly node = h("section", "guard", h("div", "title", "History"), this.empty, this.list);

  constructor() {
    this.list.setAttribute("aria-label", "History of the breaker");
  }

  patch(moves: readonly BreakerMove[], none: string): void {
    text(this.empty, moves.length ? "" : none);
    hidden(this.empty, moves.length > 0);
    hidden(this.list, moves.length === 0);
    focusable(this.list, moves.length > MOVES_SHOWN ? 0 : null);
    while (this.list.childElementCount < moves.length) this.list.append(moveRow());
    while (this.list.childElementCount > moves.length) this.list.lastElementChild!.remove();
    moves.forEach((move, index) => patchMove(this.list.children[moves.length - 1 - index]!, move));
  }
}

/** How full each limit is, that of each limit group too, and what waits. */
class Limiter {
  private readonly gauges = h("div", "gauges");
  private readonly none = h("p", "means");
  private readonly atOnce = gauge();
  private readonly coolWords = h("span");
  private readonly cool = h("p", "cool", icon("timeout"), this.coolWords);
  private readonly queued = h("span", "queued");
  private readonly sharing = h("p", "means");
  readonly node = h("section", "guard", h("div", "title", "Limits", this.queued), this.gauges, this.none, this.sharing, this.cool);

  constructor() {
    // It scrolls where there are many rates, or little room.
    focusable(this.gauges);
    this.gauges.setAttribute("role", "group");
    this.gauges.setAttribute("aria-label", "Limits");
  }

  patch(head: Head, passed_s: number): void {
    const shown = [...head.windows.map((window) => ({ window, name: unitOf(window) })), ...head.limit_groups.flatMap(groupGauges)];
    const wanted = shown.length + 1;
    while (this.gauges.childElementCount < wanted - 1) this.gauges.append(gauge());
    this.gauges.append(...(this.gauges.lastElementChild === this.atOnce ? [] : [this.atOnce]));
    while (this.gauges.childElementCount > wanted) this.gauges.firstElementChild!.remove();
    shown.forEach(({ window, name }, index) => patchGauge(this.gauges.children[index]!, window.used, window.limit, name));
    patchGauge(this.atOnce, head.counts.running + head.running_elsewhere, head.concurrency, AT_ONCE);
    hidden(this.gauges, head.untold);
    hidden(this.none, shown.length > 0);
    text(this.none, head.untold ? UNTOLD : "No rate limit.");
    text(this.queued, queuedWords(head));
    hidden(this.sharing, head.sharing.length === 0);
    text(this.sharing, sharingWords(head.sharing));
    attribute(this.sharing, "title", head.sharing.join("\n") || null);
    const cool_s = Math.ceil(head.cool_down_s - passed_s);
    hidden(this.cool, cool_s <= 0);
    text(this.coolWords, `The service asked to slow down: ${clock(cool_s)} left`);
    attribute(this.cool, "title", head.cool_why || null);
  }
}

/** A gauge for each window of a limit group; one that cools down says so. */
function groupGauges(group: LimitGroupFact): { window: WindowFact; name: string }[] {
  const cools = group.cool_s > 0 ? `slowed down for ${clock(Math.ceil(group.cool_s))}` : "";
  return group.windows.map((window) => ({ window, name: `${group.name}, ${cools || unitOf(window).replace(/^requests /, "")}` }));
}

/** `waiting: 3 high, 20 medium, 5 low; 12 more limit groups`. */
function queuedWords({ queued, more_limit_groups }: Head): string {
  const named = queued.map((items, place) => [items, PRIORITIES[place]] as const).filter(([items]) => items > 0);
  const waiting = named.length ? `waiting: ${named.map(([items, name]) => `${count(items)} ${name}`).join(", ")}` : "";
  const more = more_limit_groups ? `${count(more_limit_groups)} more limit group${more_limit_groups === 1 ? "" : "s"}` : "";
  return [waiting, more].filter(Boolean).join("; ");
}

/** `Shared with night in process 4711 and 2 others`: their attempts count in every gauge. */
function sharingWords(owners: readonly string[]): string {
  const [named, more] = [owners.slice(0, SHARING_SHOWN).join(", "), owners.length - SHARING_SHOWN];
  return `Shared with ${named}${more > 0 ? ` and ${count(more)} other${more === 1 ? "" : "s"}` : ""}`;
}

/** `requests per 2 s`. */
export function unitOf(window: WindowFact): string {
  return `${window.unit} per ${span(window.per_s).replace(/^s$/, "second")}`;
}

function probeWords({ state, probe_in_s }: BreakerFact, passed_s: number, over: boolean): string {
  if (state === "half_open") return over ? "\u2013" : "running";
  if (state !== "open" || over) return "\u2013";
  const left_s = Math.ceil(probe_in_s - passed_s);
  return left_s > 0 ? `in ${clock(left_s)}` : "due";
}

export function lever(): SVGSVGElement {
  return svg("svg", { viewBox: "0 0 12 12", class: prefixed("icon lever"), "aria-hidden": "true" }, svg("path", {}));
}

export function setLever(node: Element, is: Is): void {
  attribute(node, "data-is", is);
  attribute(node.firstElementChild!, "d", ENDS + LEVERS[is]);
}

function moveRow(): HTMLElement {
  return h("li", "", h("time"), lever(), h("b"), h("small"));
}

function patchMove(row: Element, { at_s, state, failures, limit_group }: BreakerMove): void {
  const [time, sign, word, more] = row.children;
  text(time!, timeOfDay(at_s));
  setLever(sign!, state);
  text(word!, state.replace("_", " "));
  const opened = `after ${count(failures)} failure${failures === 1 ? "" : "s"}`;
  const what = { open: opened, half_open: "a probe started", closed: "attempts start again" }[state];
  text(more!, limit_group ? `${limit_group}: ${what}` : what);
}

function gauge(): HTMLElement {
  const bar = h("div", "mini", h("i", "run"));
  bar.setAttribute("role", "meter");
  bar.setAttribute("aria-valuemin", "0");
  return h("div", "gauge", h("div", "", h("b"), h("small"), h("small", "full")), bar);
}

function patchGauge(node: Element, used: number, most: number, unit: string): void {
  const [words, bar] = node.children;
  const [value, of, full] = words!.children;
  const share = most > 0 ? used / most : 0;
  text(value!, limit(used));
  text(of!, `of ${limit(most)} ${unit}`);
  text(full!, share >= 1 ? "full" : `${Math.floor(100 * share)} %`);
  // As many at a time as may be is how it should be; a full window holds work up.
  attribute(node, "data-full", share >= 1 && unit !== AT_ONCE ? "" : null);
  attribute(bar!, "aria-label", unit);
  attribute(bar!, "aria-valuenow", String(Math.min(used, most)));
  attribute(bar!, "aria-valuemax", String(most));
  attribute(bar!, "aria-valuetext", `${limit(used)} of ${limit(most)} ${unit}`);
  width(bar!.firstElementChild as HTMLElement, share);
}
