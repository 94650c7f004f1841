import { expect, it } from "vitest";
import { BreakerPiece } from "../src/breaker";
import type { BreakerFact, BreakerMove, BreakerState, Head, WindowFact } from "../src/schema";
import { Store } from "../src/store";
import { context, counts, head, update } from "./samples";

const breaker = (changes: Partial<BreakerFact> = {}): BreakerFact => ({ ...head().breaker, ...changes });
const move = (at_s: number, state: BreakerState, failures = 3, limit_group = ""): BreakerMove => ({ at_s, state, failures, openings: 1, limit_group });
const window = (changes: Partial<WindowFact> = {}): WindowFact => ({ ...head().windows[0]!, ...changes });

function draw(changes: Partial<Head> = {}, moves: BreakerMove[] = [], now_s = 100): HTMLElement {
  const store = new Store();
  store.fold(update(1, { whole: true, head: head(changes), moves }), 100);
  const piece = new BreakerPiece(context(store));
  piece.render(now_s);
  return piece.node;
}

const rows = (node: HTMLElement): string[] => [...node.querySelectorAll("dd")].map((row) => row.textContent);
const meters = (node: HTMLElement): (string | null)[] => [...node.querySelectorAll("[role=meter]")].map((one) => one.getAttribute("aria-valuetext"));

it("tells the state by word and shape, and how far it is from opening", () => {
  const node = draw({ breaker: breaker({ failures: 2, openings: 1 }) });
  expect(node.querySelector(".ib-value")!.textContent).toBe("closed");
  expect(rows(node)).toEqual(["2 of 3", "1 of 5", "\u2013"]);
  expect(node.querySelectorAll(".ib-pips i[data-on]")).toHaveLength(2);
  const shapes = (["closed", "half_open", "open"] as const).map((state) => draw({ breaker: breaker({ state }) }).querySelector(".ib-lever path")!.getAttribute("d"));
  expect(new Set(shapes).size).toBe(3);
});

it("counts down to the next probe, and says when it is due", () => {
  const open = { breaker: breaker({ state: "open", failures: 5, openings: 2, probe_in_s: 12 }) };
  expect(rows(draw(open))).toEqual(["5, opens at 3", "2 of 5", "in 12 s"]);
  expect(rows(draw(open, [], 104.5))[2]).toBe("in 8 s");
  expect(rows(draw(open, [], 130))[2]).toBe("due");
  expect(rows(draw({ ...open, state: "failed" }, [], 104.5))[2]).toBe("\u2013");
});

it("says whose breaker it is, where each limit group has its own", () => {
  const node = draw({ breaker: breaker({ state: "open", limit_group: "eu" }) }, [move(1000, "open", 3, "eu")]);
  expect(node.querySelector(".ib-title")!.textContent).toBe("Breaker of eu");
  expect(node.querySelector(".ib-moves small")!.textContent).toBe("eu: after 3 failures");
  expect(draw().querySelector(".ib-title")!.textContent).toBe("Breaker");
});

it("lists its history, the latest first, or says that there is none", () => {
  const node = draw({}, [move(1000, "open"), move(1010, "half_open"), move(1011, "closed", 0)]);
  expect([...node.querySelectorAll(".ib-moves b")].map((word) => word.textContent)).toEqual(["closed", "half open", "open"]);
  expect(node.querySelector(".ib-moves li:last-child small")!.textContent).toBe("after 3 failures");
  expect(draw().querySelector(".ib-means:not([hidden]) + .ib-moves[hidden]")!.previousElementSibling!.textContent).toBe("It has not opened.");
});

it("says that there is no breaker, and not what failures do then: that is for the session to say", () => {
  const node = draw({ breaker: breaker({ threshold: 0 }) });
  expect(node.querySelector(".ib-means")!.textContent).toBe("");
  expect(node.querySelector(".ib-value")!.textContent).toBe("none");
  expect(node.querySelector<HTMLElement>("dl")!.hidden).toBe(true);
});

it("has a meter for every window and for what runs", () => {
  const windows = [window({ used: 17, limit: 40, per_s: 2 }), window({ used: 240_000, limit: 240_000, per_s: 60, unit: "tokens" })];
  const node = draw({ windows, concurrency: 3, counts: counts({ running: 3 }) });
  expect(meters(node)).toEqual(["17 of 40 requests per 2 s", "240K of 240K tokens per min", "3 of 3 at a time"]);
  expect([...node.querySelectorAll(".ib-full")].map((one) => one.textContent)).toEqual(["42 %", "full", "full"]);
  expect(node.querySelectorAll("[data-full]")).toHaveLength(1);
});

it("says when there is no rate limit", () => {
  const node = draw({ windows: [] });
  expect(meters(node)).toEqual(["1 of 3 at a time"]);
  expect([...node.querySelectorAll<HTMLElement>(".ib-means")].some((one) => !one.hidden && one.textContent === "No rate limit.")).toBe(true);
});

it("counts a cool-down down", () => {
  const cool = (now_s: number): HTMLElement => draw({ cool_down_s: 20 }, [], now_s).querySelector<HTMLElement>(".ib-cool")!;
  expect(cool(105).textContent).toBe("The service asked to slow down: 15 s left");
  expect(cool(121).hidden).toBe(true);
});

it("says who else uses the limits, and counts the rest", () => {
  const shared = (...sharing: string[]): HTMLElement[] =>
    [...draw({ sharing }).querySelectorAll<HTMLElement>(".ib-means")].filter((one) => one.textContent?.startsWith("Shared with") && !one.hidden);
  expect(shared()).toEqual([]);
  expect(shared("night in process 7")[0]?.textContent).toBe("Shared with night in process 7");
  expect(shared("a", "b", "c", "d")[0]?.textContent).toBe("Shared with a and 3 others");
  expect(meters(draw({ sharing: ["a"], running_elsewhere: 2 })).at(-1)).toBe("3 of 3 at a time");
});

it("has a meter for the windows of each limit group, and says which of them cools down", () => {
  const group = (name: string, used: number, cool_s = 0) => ({ name, waiting: 5, cool_s, windows: [window({ used, limit: 10, per_s: 1 })] });
  const node = draw({ windows: [], limit_groups: [group("eu", 7), group("us", 10, 20)], more_limit_groups: 2 });
  expect(meters(node).slice(0, 2)).toEqual(["7 of 10 eu, per second", "10 of 10 us, slowed down for 20 s"]);
  expect(node.textContent).toContain("2 more limit groups");
});

it("says what waits by its priority, where there is more than one", () => {
  expect(draw({ queued: [3, 0, 1200] }).textContent).toContain("waiting: 3 high, 1,200 low");
  expect(draw({ queued: [] }).textContent).not.toContain("waiting");
});

it("tells nothing of limits and a breaker that another process has, and that are not on record", () => {
  const node = draw({ untold: true, windows: [] });
  expect(node.querySelector(".ib-value")!.textContent).toBe("\u2013");
  expect([...node.querySelectorAll<HTMLElement>(".ib-means")].filter((one) => !one.hidden).map((one) => one.textContent)).toEqual(Array(3).fill("Not on record."));
  expect(node.querySelector<HTMLElement>("dl")!.hidden).toBe(true);
  expect(node.querySelector<HTMLElement>(".ib-gauges")!.hidden).toBe(true);
});
