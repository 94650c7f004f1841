import { describe, expect, it } from "vitest";
import { goneWords, SILENT_S } from "../src/silence";
import { Store } from "../src/store";
import type { State } from "../src/schema";
import { head, update } from "./samples";

/** A store that has heard of a session at second 0, and listens each second from then on. */
function listening(state: State = "running", teller: "kernel" | "server" = "kernel"): { store: Store; pass(seconds: number, step?: number): number } {
  const store = new Store(teller);
  store.fold(update(1, { whole: true, head: head({ state }) }), 0, 5000);
  store.listen(0);
  let now_s = 0;
  const pass = (seconds: number, step = 1): number => {
    for (const end_s = now_s + seconds; now_s < end_s; ) store.listen((now_s += step));
    return now_s;
  };
  return { store, pass };
}

describe("silence", () => {
  it("is told after five seconds without a word, and ends with the next", () => {
    const { store, pass } = listening();
    expect(store.silence(pass(SILENT_S - 1))).toBeNull();
    expect(store.silence(pass(1))).toEqual({ heard: 5000, why: "silent", teller: "kernel" });
    store.heard(5.5, 5005.5);
    expect(store.silence(pass(SILENT_S))).toBeNull();
    expect(store.silence(pass(1))!.heard).toBe(5005.5);
  });

  it.each(["planned", "completed", "failed", "cancelled", "interrupted"] as const)("of a session that is %s means nothing", (state) => {
    const { store, pass } = listening(state);
    expect(store.silence(pass(100))).toBeNull();
  });

  it("accuses nobody when the page itself was asleep", () => {
    const { store, pass } = listening();
    pass(4);
    const awake_s = pass(3600, 3600);
    expect(store.silence(awake_s)).toBeNull();
    expect(store.silence(awake_s + 2)).toBeNull();
    expect(store.silence(pass(SILENT_S - 1))).toBeNull();
    expect(store.silence(pass(1))).not.toBeNull();
  });

  it("does not count what a browser throttles to once a minute", () => {
    const { store, pass } = listening();
    expect(store.silence(pass(600, 60))).toBeNull();
  });

  it("is counted once, however many views listen", () => {
    const { store, pass } = listening();
    for (let at_s = 0.5; at_s < 4; at_s += 1) {
      store.listen(at_s);
      pass(1);
    }
    expect(store.silence(4.5)).toBeNull();
  });

  it.each(["restarted", "dead"] as const)("of a kernel that was %s is told at once, of ended sessions too", (why) => {
    const { store } = listening("completed");
    store.lost(why);
    expect(store.silence(1)).toEqual({ heard: 5000, why, teller: "kernel" });
    store.heard(2, 5002);
    expect(store.silence(2)).toBeNull();
  });

  it("lets clocks stand where they were at the last word", () => {
    const { store, pass } = listening();
    pass(2);
    store.heard(2, 5002);
    expect(store.passed_s(pass(4))).toBe(6);
    const gone_s = pass(3);
    expect(store.silence(gone_s)).not.toBeNull();
    expect(store.passed_s(gone_s)).toBe(2);
    expect(store.passed_s(pass(60))).toBe(2);
  });

  it("is said with the day where that is not clear", () => {
    const at_s = new Date(2026, 10, 30, 16, 20, 3).getTime() / 1000;
    expect(goneWords({ heard: at_s, why: "silent", teller: "kernel" }, at_s + 60)).toBe("kernel gone, last heard 16:20:03");
    expect(goneWords({ heard: at_s, why: "silent", teller: "server" }, at_s + 86400)).toBe("server gone, last heard 16:20:03 on 30 Nov");
  });
});
