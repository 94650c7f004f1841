import { describe, expect, it } from "vitest";
import { average, openings, rates } from "../src/rates";
import { columns, lanes, MOST_BARS, MOST_LANES } from "../src/lanes";
import type { BreakerState, Group, Mark, Update } from "../src/schema";
import { Store } from "../src/store";
import { TimelinePiece } from "../src/timeline";
import { Timescale, timeOfDay, worked } from "../src/timescale";
import { fitted } from "../src/words";
import { context, group, head, update } from "./samples";

const mark = (at_s: number, started: number, failed = 0): Mark => ({ at_s, started, ended: started, failed });
const move = (at_s: number, state: BreakerState, limit_group = "") => ({ at_s, state, failures: 3, openings: 1, limit_group });
const numbered = (groups: Group[]): Map<number, Group> => new Map(groups.map((one) => [one.number, one]));

function draw(changes: Partial<Update> = {}): { piece: TimelinePiece; store: Store; send: (more: Partial<Update>, now_s: number) => void } {
  const store = new Store();
  const piece = new TimelinePiece(context(store, { unix_s: () => 0 }));
  let seq = 0;
  const send = (more: Partial<Update>, now_s: number): void => {
    store.fold(update((seq += 1), { whole: seq === 1, ...more }), now_s);
    piece.render(now_s);
  };
  send(changes, 100);
  return { piece, store, send };
}

const d = (piece: TimelinePiece, name: string): string => piece.node.querySelector(`.ib-${name}`)?.getAttribute("d") ?? "";
const label = (piece: TimelinePiece): string => piece.node.querySelector("[role=img]")!.getAttribute("aria-label")!;

describe("rates", () => {
  it("are the differences of the marks over the time between them", () => {
    const bins = rates([mark(0, 0), mark(2, 20), mark(4, 20, 4)], [{ from_s: 0, to_s: 4 }], 4);
    expect(bins.map((bin) => bin.started_per_s)).toEqual([10, 10, 0, 0]);
    expect(bins.map((bin) => bin.failed_per_s)).toEqual([0, 0, 2, 2]);
  });

  it("keep their places while time goes on, and are never more than asked for by much", () => {
    const marks = Array.from({ length: 240 }, (_, index) => mark(index * 10, index));
    for (const to_s of [2000, 2100, 2390]) {
      const bins = rates(marks, [{ from_s: 0, to_s }], 120);
      expect(bins.length).toBeLessThanOrEqual(121);
      expect(bins[1]!.from_s % 32).toBe(0);
    }
  });

  it("do not fall at the end because the latest mark is a little late, and do when nothing starts any more", () => {
    const marks = [mark(0, 0), mark(1, 10), mark(2, 20), mark(3, 30), mark(4, 40)];
    expect(rates(marks, [{ from_s: 0, to_s: 5.4 }], 120).at(-1)).toMatchObject({ started_per_s: 10, to_s: 5.4 });
    expect(rates(marks, [{ from_s: 0, to_s: 12 }], 120).at(-1)!.started_per_s).toBe(0);
  });

  it("of a first burst that took a twelfth of a second do not tower over all else", () => {
    const bins = rates([mark(0, 0), mark(0.08, 6), mark(1.1, 36), mark(2.1, 46)], [{ from_s: 0, to_s: 2.1 }], 120);
    expect(Math.max(...bins.map((bin) => bin.started_per_s))).toBeLessThan(40);
  });

  it("on average leave out the time in which no process worked", () => {
    expect(average([mark(0, 0), mark(10, 100)], [{ from_s: 0, to_s: 5 }, { from_s: 8, to_s: 13 }])).toBe(10);
  });
});

it("tells when the breaker was open: to its closing, or to now", () => {
  const moves = [move(1, "open"), move(2, "half_open"), move(2.1, "open"), move(4, "half_open"), move(4.1, "closed"), move(8, "open")];
  expect(openings(moves, 9)).toEqual([{ from_s: 1, to_s: 4.1 }, { from_s: 8, to_s: 9 }]);
});

it("tells the breakers of limit groups apart", () => {
  const moves = [move(1, "open", "eu"), move(2, "open", "us"), move(3, "closed", "us")];
  expect(openings(moves, 9)).toEqual([{ from_s: 2, to_s: 3 }, { from_s: 1, to_s: 9 }]);
});

describe("the time axis", () => {
  it("has three to six round ticks, whatever the span", () => {
    for (let span_s = 0.3; span_s < 1e7; span_s *= 1.37) {
      const ticks = new Timescale([{ from_s: 1_795_335_085.07, to_s: 1_795_335_085.07 + span_s }], 0, 900).ticks(6);
      expect(ticks.length, `${span_s} s`).toBeGreaterThanOrEqual(3);
      expect(ticks.length, `${span_s} s`).toBeLessThanOrEqual(6);
      if (span_s < 86_400) expect(new Set(ticks.map((tick) => tick.words)).size).toBe(ticks.length);
    }
  });

  it("leads from time to pixels and back, over a cut", () => {
    const scale = new Timescale([{ from_s: 0, to_s: 100 }, { from_s: 5000, to_s: 5100 }], 20, 242);
    expect([0, 100, 3000, 5000, 5100].map((at_s) => scale.x(at_s))).toEqual([20, 120, 120, 142, 242]);
    expect([20, 70, 192].map((x) => scale.at_s(x))).toEqual([0, 50, 5050]);
    expect(scale.cuts()).toEqual([{ x: 120, seconds: 4900 }]);
  });

  it("is cut where no process worked for long, and not where work was slow or paused for a moment", () => {
    const first = Array.from({ length: 60 }, (_, index) => mark(index, index));
    const again = first.map((one) => mark(one.at_s + 90_000, one.started + 59));
    expect(worked([...first, ...again], 0, 90_059)).toEqual([{ from_s: 0, to_s: 59 }, { from_s: 90_000, to_s: 90_059 }]);
    expect(worked([...first, mark(400, 59), mark(401, 60)], 0, 401)).toHaveLength(1);
    const slow = Array.from({ length: 5 }, (_, index) => mark(index * 3600, index));
    expect(worked(slow, 0, 4 * 3600)).toHaveLength(1);
  });

  it("tells parts of a second only where they matter", () => {
    const at_s = new Date(2026, 10, 22, 8, 5, 9, 250).getTime() / 1000;
    expect([timeOfDay(at_s), timeOfDay(at_s, 60), timeOfDay(at_s, 0.5), timeOfDay(at_s, 0.05)]).toEqual(["08:05:09", "08:05", "08:05:09.2", "08:05:09.25"]);
  });
});

describe("the lanes", () => {
  it("are used again as soon as they are free", () => {
    const groups = [group(1, { started_s: 10, ended_s: 20 }), group(2, { started_s: 12, ended_s: 30 }), group(3, { started_s: 20, ended_s: 25 })];
    expect(lanes(numbered(groups), 40)!.map((bar) => bar.lane)).toEqual([0, 1, 0]);
  });

  it("reach to now for what runs, and leave out what has not begun", () => {
    const groups = [group(1, { status: "running", ended_s: 0 }), group(2, { status: "pending", started_s: 0, ended_s: 0 })];
    expect(lanes(numbered(groups), 1060)).toMatchObject([{ lane: 0, from_s: 1000, to_s: 1060 }]);
  });

  it("give way to columns when there are too many to tell apart", () => {
    const beside = Array.from({ length: MOST_LANES + 1 }, (_, index) => group(index, { started_s: 10, ended_s: 20 }));
    const many = Array.from({ length: MOST_BARS + 1 }, (_, index) => group(index, { started_s: index + 1, ended_s: index + 2 }));
    expect([lanes(numbered(beside), 20), lanes(numbered(many), 200)]).toEqual([null, null]);
    const stacked = columns(numbered([group(1, { started_s: 1, ended_s: 3 }), group(2, { status: "failed", started_s: 2, ended_s: 9 })]), 9, 5, (at_s) => at_s);
    expect(stacked.get("completed")).toEqual([0, 1, 1, 1, 0]);
    expect(stacked.get("failed")).toEqual([0, 0, 1, 1, 1]);
  });
});

it("cuts a name to the room there is, and leaves it out when too little would be left", () => {
  expect(["Batch 1", "Batch 123", "Weda Bay", "Sofifi"].map((name) => fitted(name, 42))).toEqual(["Batch 1", "123", "Weda B\u2026", "Sofifi"]);
  expect([fitted("Batch 123", 12), fitted("Weda Bay", 20)]).toEqual(["", ""]);
});

describe("the piece", () => {
  const pace = [mark(1000, 0), mark(1030, 1140, 20), mark(1060, 2280, 40)];

  it("says the essence in words", () => {
    const { piece } = draw({ head: head({ allowed_per_s: 40 }), pace, moves: [move(1010, "open"), move(1012, "closed"), move(1020, "open"), move(1022, "closed")] });
    expect(label(piece)).toBe("38 attempts per second on average, 40 allowed; 40 failed; breaker opened twice");
    expect(piece.node.querySelector("[role=img] > g")!.getAttribute("aria-hidden")).toBe("true");
  });

  it("draws the rate, the failures, the limit, the openings and the bars", () => {
    const { piece } = draw({ pace, moves: [move(1010, "open")], groups: [group(1), group(2, { status: "failed", started_s: 1015, ended_s: 1030 })] });
    for (const name of ["rate", "failures", "allowed", "open", "bar-of[data-is=completed]", "bar-of[data-is=failed]"]) {
      if (name !== "allowed") expect(d(piece, name), name).not.toBe("");
    }
    expect(piece.node.querySelector(".ib-label")!.textContent).toBe("1 /s in the long run");
    expect(piece.node.querySelectorAll(".ib-signs .ib-icon[data-is=failed]")).toHaveLength(1);
  });

  it("keeps to a few hundred nodes for 10,000 groups, and draws them in a moment", () => {
    const groups = Array.from({ length: 10_000 }, (_, index) => group(index, { started_s: 1000 + index / 200, ended_s: 1001 + index / 200 }));
    const { piece } = draw({ pace, groups });
    expect(piece.node.querySelectorAll("svg *").length).toBeLessThan(400);
    expect(d(piece, "bar-of[data-is=completed]")).not.toBe("");
  });

  it("keeps to a few hundred nodes for as many bars as it draws", () => {
    const groups = Array.from({ length: MOST_BARS }, (_, index) => group(index, { status: "failed", started_s: 1000 + index * 10, ended_s: 1009 + index * 10 }));
    expect(draw({ pace, groups }).piece.node.querySelectorAll("svg *").length).toBeLessThanOrEqual(420);
  });

  it("is drawn twice a second while it runs, and at once when it ends", () => {
    const { piece, send } = draw({ pace: [mark(1000, 0), mark(1010, 100)] });
    const before = d(piece, "rate");
    send({ pace_at: 2, pace: [mark(1020, 900)] }, 100.2);
    expect(d(piece, "rate")).toBe(before);
    send({ head: head({ state: "completed" }), pace_at: 2, pace: [mark(1020, 900)] }, 100.3);
    expect(d(piece, "rate")).not.toBe(before);
  });

  it("ends at the end: an hour later it looks the same", () => {
    const ended = { head: head({ state: "completed", at_s: 1060 }), pace, groups: [group(1)] };
    const later = { ...ended, head: head({ state: "completed", at_s: 4660 }) };
    expect(draw(ended).piece.node.querySelector("svg > g")!.innerHTML.replace(/-\d+\)/g, "")).toBe(
      draw(later).piece.node.querySelector("svg > g")!.innerHTML.replace(/-\d+\)/g, ""),
    );
  });

  it("says so when there is nothing to draw", () => {
    const empty = (changes: Partial<Update>): string => draw(changes).piece.node.querySelector<HTMLElement>(".ib-empty:not([hidden])")?.textContent ?? "";
    expect(empty({ head: head({ state: "planned" }) })).toBe("Nothing has started yet.");
    expect(empty({ head: head({ state: "completed" }), pace: [mark(1000, 0)] })).toBe("Nothing was started.");
    expect(empty({ pace: [mark(1000, 0)] })).toBe("");
  });

  it("tells what lies under the pointer, in text", () => {
    const name = "<b>Sofifi</b>";
    const { piece } = draw({ pace, groups: [group(1, { name, started_s: 1000, ended_s: 1060, status: "failed" })] });
    const drawing = piece.node.querySelector("svg[role=img]")!;
    drawing.dispatchEvent(Object.assign(new Event("pointermove"), { offsetX: 400, offsetY: 170 }));
    const said = piece.node.querySelector(".ib-readout")!;
    expect(said.textContent).toContain("38 /s \u00b7 0.67 /s failed \u00b7 <b>Sofifi</b>: failed, 15 of 15, 1 m 00 s");
    drawing.dispatchEvent(new Event("pointerleave"));
    expect(said.textContent).toBe("");
  });
});
