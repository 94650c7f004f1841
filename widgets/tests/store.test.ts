import { describe, expect, it } from "vitest";
import { done, Store, tried } from "../src/store";
import { counts, group, head, item, update } from "./samples";

describe("Store", () => {
  it("takes a whole update at any sequence number", () => {
    const store = new Store();
    expect(store.fold(update(41, { whole: true, groups: [group(1)] }), 0)).toBe("folded");
    expect(store.fold(update(42), 0)).toBe("folded");
    expect(store.order).toEqual([1]);
  });

  it("folds a partial update into the rows it names", () => {
    const store = new Store();
    store.fold(update(1, { whole: true, groups: [group(1), group(2, { status: "running", done: 3 })] }), 0);
    expect([...store.running]).toEqual([2]);
    store.fold(update(2, { groups: [group(2, { done: 15 }), group(3, { status: "running" })] }), 0);
    expect(store.order).toEqual([1, 2, 3]);
    expect(store.groups.get(2)!.done).toBe(15);
    expect([...store.running]).toEqual([3]);
  });

  it("replaces everything with a whole update", () => {
    const store = new Store();
    store.fold(update(1, { whole: true, groups: [group(1), group(2)], items: [item("a")] }), 0);
    store.fold(update(2, { whole: true, groups: [group(7)] }), 0);
    expect(store.order).toEqual([7]);
    expect(store.items).toEqual([]);
  });

  it("keeps groups in order when an earlier one comes late", () => {
    const store = new Store();
    store.fold(update(1, { whole: true, groups: [group(1), group(4), group(2), group(3)] }), 0);
    expect(store.order).toEqual([1, 2, 3, 4]);
  });

  it("shows what came after a gap, and reports the gap until a whole update heals it", () => {
    const store = new Store();
    store.fold(update(1, { whole: true }), 0);
    expect(store.fold(update(3, { head: head({ elapsed_s: 99 }) }), 0)).toBe("gap");
    expect(store.head!.elapsed_s).toBe(99);
    expect(store.fold(update(4), 0)).toBe("gap");
    expect(store.fold(update(5, { whole: true }), 0)).toBe("folded");
    expect(store.fold(update(6), 0)).toBe("folded");
  });

  it("lets nothing old overwrite what is newer", () => {
    const store = new Store();
    store.fold(update(5, { whole: true, head: head({ elapsed_s: 50 }) }), 0);
    expect(store.fold(update(5, { head: head({ elapsed_s: 1 }) }), 0)).toBe("stale");
    expect(store.fold(update(4), 0)).toBe("stale");
    expect(store.head!.elapsed_s).toBe(50);
  });

  it("lists what failed no longer once it has completed after all", () => {
    const store = new Store();
    store.fold(update(1, { whole: true, failures: [item("a", { status: "failed" }), item("b", { status: "failed" })] }), 0);
    store.fold(update(2, { items: [item("a")], failures: [item("b", { status: "failed" })] }), 0);
    expect(store.failures.map((one) => one.key)).toEqual(["b"]);
  });

  it("counts the seconds since the head came", () => {
    const store = new Store();
    store.fold(update(1, { whole: true }), 10);
    expect(store.passed_s(12.5)).toBe(2.5);
    expect(store.passed_s(9)).toBe(0);
  });
});

it("tells items that were tried from items left aside", () => {
  const all = counts({ completed: 5, failed: 2, timeout: 1, cancelled: 10, skipped: 20, total: 38 });
  expect(tried(all)).toBe(8);
  expect(done(all)).toBe(38);
});
