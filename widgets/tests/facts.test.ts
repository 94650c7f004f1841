// What the row of facts shows: a table of states and policies; figures; the line.
import { describe, expect, it } from "vitest";
import { Facts, shownOf } from "../src/facts";
import { moments, perWords } from "../src/format";
import type { BreakerMove, Fact, Head, Mark, State } from "../src/schema";
import { ratesOf } from "../src/spark";
import { counts, head } from "./samples";

const ENDS: State[] = ["completed", "failed", "cancelled", "interrupted"];
const none = { ...head().breaker, threshold: 0 };
const opened: BreakerMove = { at_s: 1010, state: "open", failures: 3, openings: 1, limit_group: "" };
const fact = (title: string, changes: Partial<Fact> = {}): Fact => ({ title, value: "1", aside: "", foot: "", share: null, tone: "", is_live: false, ...changes });

function draw(changes: Partial<Head> = {}, moves: BreakerMove[] = [], pace: Mark[] = [], passed_s = 0) {
  const facts = new Facts();
  const patch = (more: Partial<Head>, later_s = passed_s) => facts.patch({ head: head({ ...changes, ...more }), moves, pace }, later_s);
  patch({});
  const titles = () => [...facts.node.querySelectorAll(".ib-title")].map((node) => node.textContent);
  const cell = (title: string) => [...facts.node.children].find((node) => node.querySelector(".ib-title")!.textContent === title)!;
  const words = (title: string) => [...cell(title).querySelectorAll("b, small")].map((node) => node.textContent).filter(Boolean);
  return { facts, patch, titles, words, cell };
}

describe("a row shows what can vary and is known", () => {
  const cases: [string, Partial<Head>, string[]][] = [
    ["a running session with a breaker and a rate", {}, ["rate", "window", "breaker", "journal"]],
    ["one without a breaker", { breaker: none }, ["rate", "window", "journal"]],
    ["one without limits", { windows: [], allowed_per_s: null }, ["rate", "breaker", "journal"]],
    ["one without either", { windows: [], breaker: none }, ["rate", "journal"]],
    ["one that costs", { spent_usd: 0.4, budget_usd: 5 }, ["rate", "spent", "window", "breaker"]],
    ["one of another process that tells nothing", { untold: true }, ["rate", "journal"]],
    ["a forecast", { breaker: none, windows: [], facts: ["a", "b", "c", "d"].map((title) => fact(title)) }, ["rate", "work"]],
    ["a refresh", { facts: ["a", "b", "c"].map((title) => fact(title)) }, ["rate", "work", "window"]],
    ["prompts by batch", { spent_usd: 0, windows: [], facts: [fact("a"), fact("b")] }, ["rate", "spent", "work", "breaker"]],
    ["nothing done at all", { state: "cancelled", rate_per_s: 0, counts: counts({ cancelled: 10, total: 10 }), facts: [fact("a")] }, ["work"]],
    ["a rollback", { state: "rolled_back", rate_per_s: 0, facts: [fact("a")] }, ["work", "journal"]],
  ];
  it.each(cases)("%s", (_, changes, shown) => expect(shownOf(head(changes), [])).toEqual(shown));

  it.each(ENDS)("once it is %s: no limit, and a breaker only if it has opened", (state) => {
    expect(draw({ state }).titles()).toEqual(["Average rate", "Journal"]);
    expect(draw({ state }, [opened]).words("Breaker")).toEqual(["closed", "opened once"]);
  });

  it.each(["planned", "running", "paused"] as State[])("the same facts in the same places while it is %s", (state) => {
    const { patch, titles } = draw();
    const before = titles();
    for (const state_ of ["closed", "open", "half_open"] as const) {
      patch({ state, rate_per_s: 0, breaker: { ...head().breaker, state: state_, failures: 3 }, windows: [{ ...head().windows[0]!, used: 0 }] });
      expect(titles().map((title) => title!.replace("now", ""))).toEqual(before.map((title) => title!.replace("now", "")));
    }
  });

  it("five at most, however many there are", () => {
    const { facts } = draw({ spent_usd: 1, facts: ["a", "b", "c", "d"].map((title) => fact(title)) });
    expect(facts.node.children.length).toBe(5);
    expect(facts.node.getAttribute("data-many")).toBe("5");
  });

  it("nothing at all where nothing is known", () => {
    const { facts } = draw({ state: "completed", rate_per_s: 0, spent_usd: null, facts: [], untold: true, counts: counts({ total: 0 }) });
    expect(facts.node.textContent).not.toContain("Rate");
  });
});

describe("figures", () => {
  it("say their units in words", () => {
    const { words } = draw({ rate_per_s: 8.2, allowed_per_s: 20, windows: [{ used: 7, limit: 20, most: 20, per_s: 1, unit: "requests" }] });
    expect(words("Rate now")).toEqual(["8.2", "of 20 per second"]);
    expect(words("Limit used")).toEqual(["7", "of 20 per second", "room for 13 requests now"]);
    expect([1, 60, 300, 3600, 86_400].map(perWords)).toEqual(["per second", "per minute", "per 5 min", "per hour", "per day"]);
  });

  it("claim no use of limits that nobody has asked", () => {
    expect(draw({ state: "planned", rate_per_s: 0 }).words("Limit used")).toEqual(["\u2013", "of 200 per 5 min"]);
  });

  it("claim nothing of now once the kernel is gone", () => {
    const { facts, titles, words } = draw();
    expect(words("Limit used").at(-1)).toBe("room for 183 requests now");
    facts.patch({ head: head(), moves: [], pace: [] }, 0, true);
    expect(titles()[0]).toBe("Last rate");
    expect(words("Limit used")).toEqual(["17", "of 200 per 5 min"]);
  });

  it("tell a breaker that has no cell of its own, in place of what is allowed", () => {
    const facts = ["a", "b", "c"].map((title) => fact(title));
    const { words, cell } = draw({ facts, rate_per_s: 0, breaker: { ...head().breaker, state: "open" } });
    expect(words("Rate now")).toEqual(["0", "breaker open"]);
    expect(cell("Rate now").getAttribute("data-tone")).toBe("warn");
  });

  it("of the work stand as they are told, and count what runs on with the panel's clocks", () => {
    const facts = [fact("Slowest", { value: "Sofifi", foot: "1970-01-01T00:17:30.000Z so far", tone: "warn", share: 0.5 })];
    const { patch, words, cell } = draw({ at_s: 1060, facts });
    expect(words("Slowest")).toEqual(["Sofifi", "10 s so far"]);
    patch({}, 2.5);
    expect(words("Slowest")).toEqual(["Sofifi", "12 s so far"]);
    expect(cell("Slowest").getAttribute("data-tone")).toBe("warn");
    expect(cell("Slowest").querySelector<HTMLElement>(".ib-mini i")!.style.width).toBe("50%");
  });

  it("count down to what expires, and not beyond", () => {
    const told = "in 2026-12-02T08:10:00Z";
    const at_s = Date.parse("2026-12-02T08:10:00Z") / 1000;
    expect(moments(told, at_s - 172_740)).toBe("in 47 h 59 m");
    expect(moments(told, at_s + 1)).toBe("expired");
    expect(moments("site 2026-12-02T08:10:00Z", at_s)).toBe("site 2026-12-02T08:10:00Z");
  });
});

describe("the line", () => {
  const pace = (many: number, per_s: number): Mark[] => Array.from({ length: many }, (_, at) => ({ at_s: 1000 + at, started: at * per_s, ended: at * per_s, failed: 0 }));

  it.each([3, 12, 45, 600])("is as long as its cell after %i s", (seconds) => {
    const { cell } = draw({ at_s: 1000 + seconds, elapsed_s: seconds, rate_per_s: 5 }, [], pace(seconds + 1, 5));
    const line = cell("Rate now").querySelector(".ib-rate")!.getAttribute("d")!;
    expect([line.startsWith("M0.0 "), line.includes("L120.0 "), line.includes("NaN")]).toEqual([true, true, false]);
  });

  it("is the whole run once it has ended, and the last minute before", () => {
    const slow = [...pace(301, 1), { at_s: 1301, started: 400, ended: 400, failed: 0 }];
    const over = ratesOf(head({ state: "completed", started_s: 1000 }), slow);
    expect(over[10]).toBeCloseTo(1);
    expect(Math.max(...over)).toBe(over.at(-1));
    const running = ratesOf(head({ at_s: 1300, started_s: 1000, rate_per_s: 1 }), slow.slice(0, 301));
    expect(new Set(running.map((rate) => rate.toFixed(3)))).toEqual(new Set(["1.000"]));
  });

  it("falls to nothing while nothing ends", () => {
    const stopped = pace(31, 2);
    const rates = ratesOf(head({ at_s: 1060, started_s: 1000, rate_per_s: 0 }), stopped);
    expect(rates.at(-1)).toBe(0);
    expect(rates[40]).toBeLessThan(rates[29]!);
    expect(rates.every((rate) => rate >= 0 && Number.isFinite(rate))).toBe(true);
  });

  it("ends at the figure beside it, without a kink", () => {
    const rates = ratesOf(head({ at_s: 1030.8, started_s: 1000, rate_per_s: 2 }), pace(31, 2));
    expect(rates.at(-1)).toBeCloseTo(2);
    expect(rates.at(-2)).toBeCloseTo(2, 1);
  });

  it("is not there before there is a second to show", () => {
    expect(ratesOf(head({ state: "planned", started_s: 0 }), [])).toEqual([]);
    expect(ratesOf(head({ at_s: 1000.4, started_s: 1000 }), pace(1, 1))).toEqual([]);
  });
});
