import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { errorLines } from "../src/csv";
import { ErrorList, nameOf } from "../src/errorlist";
import { ErrorsPiece } from "../src/errors";
import type { ErrorCount, Errors, RecordedItem, Update } from "../src/schema";
import { Store } from "../src/store";
import { View } from "../src/view";
import { context, counts, head, update } from "./samples";

const bad = (key: string, changes: Partial<RecordedItem> = {}): RecordedItem => ({ key, status: "failed", attempts: 1, seconds: 0.2, error: `HTTP 404 of ${key}`, tries: [], traceback: "", ...changes });
const message = (message: string, count: number, changes: Partial<ErrorCount> = {}): ErrorCount => ({ message, count, status: "failed", scope: "item", ...changes });
const keys = (from: number, count: number): RecordedItem[] => Array.from({ length: count }, (_, index) => bad(`k${from + index}`));

/** A page of a list of 92, 11 and 1. */
function page(offset: number, changes: Partial<Errors> = {}): Errors {
  const groups = offset ? [] : [message("HTTP 404 of <key>", 92), message("HTTP 500", 11, { scope: "service" }), message("odd", 1)];
  const items = keys(offset, Math.min(100, 104 - offset));
  return { kind: "errors", id: "", search: "", version: 7, total: 104, of: 104, groups, more_groups: 0, offset, items, ...changes };
}

let now_s = 100;

function mount(changes: Partial<Update["head"]> = {}) {
  const store = new Store();
  const press = vi.fn();
  const piece = new ErrorsPiece(context(store, { press }));
  document.body.replaceChildren(piece.node);
  let seq = 0;
  const receive = (more: Partial<Update["head"]> = {}): void => {
    seq += 1;
    const failed = counts({ completed: 9896, failed: 104, total: 10_000 });
    store.fold(update(seq, { whole: seq === 1, head: head({ state: "completed", can: ["retry_failed"], counts: failed, ...changes, ...more }) }), now_s);
    piece.render(now_s);
  };
  receive();
  const answer = (errors: Errors): void => {
    store.tell(errors);
    piece.render(now_s);
  };
  const find = <T extends HTMLElement>(selector: string): T => piece.node.querySelector<T>(selector)!;
  const search = (words: string): void => {
    find<HTMLInputElement>(".ib-filter").value = words;
    find(".ib-filter").dispatchEvent(new Event("input"));
    vi.advanceTimersByTime(300);
    piece.render(now_s);
  };
  return { store, press, piece, receive, answer, find, search };
}

function lines(node: HTMLElement): string[] {
  const rows = [...node.querySelectorAll<HTMLElement>(".ib-rows .ib-row")];
  rows.sort((a, b) => Number(a.getAttribute("aria-rowindex")) - Number(b.getAttribute("aria-rowindex")));
  return rows.map((row) => `${row.querySelector(".ib-status b")!.textContent} ${row.querySelector(".ib-words")!.textContent}`.trim());
}

function key(node: Element, name: string): void {
  node.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(performance, "now").mockImplementation(() => now_s * 1000);
  now_s = 100;
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const HEADS = ["92\u2009\u00d7 HTTP 404 of <key>", "11\u2009\u00d7 HTTP 500", "odd"];

it("asks the journal, and shows messages as the overview; one that is alone is its item", () => {
  const { press, answer, piece, find } = mount();
  expect(press.mock.calls).toEqual([["errors", 0, "", 100, 0]]);
  expect(find(".ib-empty").textContent).toBe("Reading the journal\u2026");
  answer(page(0));
  expect(lines(piece.node)).toEqual([...HEADS.slice(0, 2), "\u2026"]);
  expect(find(".ib-aside").textContent).toBe("3 messages");
  expect(press.mock.calls.at(-1)).toEqual(["errors", 100, "", 100, 7]);
  answer(page(100));
  expect(lines(piece.node).at(-1)).toBe("k103");
});

it("opens a message under the keyboard, closes it from any of its items, and keeps the focus", () => {
  const { answer, piece, find } = mount();
  answer(page(0));
  answer(page(100));
  const row = (): HTMLElement => find(".ib-row:focus");
  find(".ib-rows .ib-row").focus();
  key(row(), "ArrowRight");
  expect(lines(piece.node).slice(0, 3)).toEqual([HEADS[0], "k0", "k1"]);
  expect(row().getAttribute("aria-expanded")).toBe("true");
  key(row(), "ArrowDown");
  key(row(), "ArrowDown");
  expect(row().querySelector(".ib-words")!.textContent).toBe("k1");
  key(row(), "ArrowLeft");
  expect(lines(piece.node).slice(0, 2)).toEqual(HEADS.slice(0, 2));
  expect(row().querySelector(".ib-words")!.textContent).toBe("HTTP 404 of <key>");
});

it("shows an item's whole story, and Escape gives the keyboard back to its row", () => {
  const tries = [{ attempt: 1, seconds: 0.5, error: "HTTP 500" }];
  const item = bad("k1", { traceback: "shop.py:7 in fetch: raise\nthen 12 frames of aiohttp", tries, attempts: 2 });
  const { answer, find, piece } = mount();
  answer(page(0, { groups: [message("HTTP 404 of <key>", 2)], total: 2, items: [bad("k0"), item] }));
  const last = [...piece.node.querySelectorAll<HTMLElement>(".ib-rows .ib-row")].find((row) => row.textContent!.includes("k1"))!;
  last.click();
  piece.render(now_s);
  expect(find(".ib-details .ib-whole").textContent).toContain("HTTP 404 of k1");
  expect([...piece.node.querySelectorAll(".ib-details .ib-where li")].map((node) => [node.textContent, node.className])).toEqual([
    ["shop.py:7 in fetch: raise", ""],
    ["then 12 frames of aiohttp", "ib-folded"],
  ]);
  expect(find(".ib-details .ib-tries").textContent).toBe("attempt 1: HTTP 500 (0.5 s)");
  key(find(".ib-details"), "Escape");
  expect(find(".ib-details").hidden).toBe(true);
  expect(document.activeElement!.querySelector(".ib-words")!.textContent).toBe("k1");
});

it("says how much of a long error is cut, and shows all of it", () => {
  const { answer, find, piece } = mount();
  const error = "x".repeat(4212);
  answer(page(0, { groups: [message(error, 1)], total: 1, items: [bad("k0", { error })] }));
  find(".ib-rows .ib-row").click();
  piece.render(now_s);
  expect(find(".ib-cut span").textContent).toBe("\u2026 3,412 characters more");
  find(".ib-cut button").click();
  expect(find(".ib-whole .ib-words").textContent).toBe(error);
});

it("searches in the journal, and runs again what matches", () => {
  const { answer, find, press, search } = mount();
  answer(page(0));
  search("a/b ");
  expect(press.mock.calls.at(-1)).toEqual(["errors", 0, "a%2Fb", 100, 0]);
  answer(page(0)); // of the search before
  answer(page(0, { search: "a/b", version: 8, total: 2, groups: [message("a/b", 2)], items: keys(0, 2) }));
  expect(find(".ib-aside").textContent).toBe("2 of 104");
  expect(find(".ib-retry_failed").textContent).toBe("Retry these 2");
  find(".ib-retry_failed").click();
  expect(press.mock.calls.at(-1)).toEqual(["retry_failed", "a%2Fb"]);
  search("");
  answer(page(0, { version: 9 }));
  find(".ib-retry_failed").click();
  expect(press.mock.calls.at(-1)).toEqual(["retry_failed"]);
});

it("takes a file of all that match, not of what was looked at", async () => {
  const blobs: Blob[] = [];
  vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => (blobs.push(blob as Blob), "blob:x"));
  vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(() => undefined);
  const { answer, find, press } = mount();
  answer(page(0));
  find(".ib-download").click();
  expect(press.mock.calls.at(-1)).toEqual(["errors", 0, "", 2000, 7]);
  answer(page(0, { items: keys(0, 60) }));
  expect([press.mock.calls.at(-1), find(".ib-download").textContent]).toEqual([["errors", 60, "", 2000, 7], "60 of 104\u2026"]);
  answer(page(60, { items: keys(60, 44) }));
  expect((await blobs[0]!.text()).trim().split("\r\n")).toHaveLength(105);
  expect(find(".ib-download").textContent).toBe("CSV");
});

it("a file has the whole of it, and runs no formula", () => {
  const tries = [{ attempt: 1, seconds: 0.5, error: "HTTP 500" }];
  const [titles, line] = errorLines([bad("k", { tries, traceback: "a.py:1 in f" })]);
  expect(titles).toHaveLength(line!.length);
  expect(line).toEqual(["k", "failed", 1, 0.2, "HTTP 404 of k", "a.py:1 in f", "1: HTTP 500"]);
});

it("reads anew what nobody is at, and only says that there is more where somebody is", () => {
  const { answer, find, press, receive } = mount({ state: "running", can: ["pause"] });
  answer(page(0));
  answer(page(100));
  now_s += 3;
  receive({ counts: counts({ failed: 110, total: 10_000 }) });
  expect(press.mock.calls.at(-1)).toEqual(["errors", 0, "", 100, 0]);
  answer(page(0, { version: 8, of: 110, total: 110, groups: [message("new", 110)], items: keys(0, 100) }));
  find(".ib-rows .ib-row").focus();
  now_s += 30;
  const asked = press.mock.calls.length;
  receive({ counts: counts({ failed: 152, total: 10_000 }) });
  expect(press).toHaveBeenCalledTimes(asked);
  expect(find(".ib-news").textContent).toBe("42 more: show");
  expect(find(".ib-retry_failed").hidden).toBe(true);
  find(".ib-news").click();
  expect(press.mock.calls.at(-1)).toEqual(["errors", 0, "", 100, 0]);
});

it("begins anew when the kernel knows its list no more", () => {
  const { answer, press } = mount();
  answer(page(0));
  answer(page(100, { version: 9 }));
  expect(press.mock.calls.at(-1)).toEqual(["errors", 0, "", 100, 0]);
});

it("is a tab that is there when something failed, opened by the number above", () => {
  const store = new Store();
  const view = new View("panel", context(store));
  document.body.replaceChildren(view.node);
  const tab = (): HTMLElement => [...view.node.querySelectorAll<HTMLElement>("[role=tab]")].find((node) => node.textContent === "Errors")!;
  store.fold(update(1, { whole: true }), 0);
  view.render(0);
  expect([tab().hidden, view.node.querySelector<HTMLButtonElement>("button.ib-failed")!.disabled]).toEqual([true, true]);
  store.fold(update(2, { head: head({ counts: counts({ failed: 104, total: 10_000 }) }) }), 1);
  view.render(1);
  expect(tab().hidden).toBe(false);
  view.node.querySelector<HTMLButtonElement>("button.ib-failed")!.click();
  expect(tab().getAttribute("aria-selected")).toBe("true");
});

it("finds its way in a list of a hundred thousand", () => {
  const list = new ErrorList();
  const groups = Array.from({ length: 300 }, (_, index) => message(`m${index}`, 300 - index));
  const told = groups.reduce((sum, { count }) => sum + count, 0);
  list.take(page(0, { groups, more_groups: 54_850, total: 100_000, of: 100_000 }));
  expect([list.length, list.messages]).toEqual([301, 55_150]);
  expect(list.at(300)).toMatchObject({ kind: "message", group: { message: "54,850 other messages", count: 100_000 - told } });
  expect(list.turn(nameOf(groups[1]!))).toBe(1);
  expect(list.at(2)).toMatchObject({ kind: "item", at: 300, item: undefined });
  expect([list.missing(300), list.lineOf(300), list.lineOf(0), list.headOf(50)]).toEqual([300, 2, -1, 1]);
  expect(list.at(list.length)).toBeUndefined();
  expect(list.at(-1)).toBeUndefined();
});

it("opens of two groups with one message the one that was meant", () => {
  const { answer, piece } = mount();
  const groups = [message("HTTP 503", 20, { scope: "service" }), message("HTTP 503", 20, { status: "timeout" })];
  answer(page(0, { groups, total: 40, items: keys(0, 40) }));
  expect(lines(piece.node)).toHaveLength(2);
  piece.node.querySelectorAll<HTMLElement>(".ib-rows .ib-row")[1]!.click();
  piece.render(now_s);
  expect(lines(piece.node).slice(1, 4)).toEqual([expect.stringContaining("HTTP 503"), "k20", "k21"]);
});

it("asks again for what was not answered: a search, a list, a part of a file", () => {
  const { answer, find, press, receive, search } = mount();
  const wait = (): unknown => {
    press.mockClear();
    now_s += 6;
    receive();
    return press.mock.calls.find(([name]) => name === "errors");
  };
  answer(page(0));
  answer(page(100));
  search("k1");
  expect(wait()).toEqual(["errors", 0, "k1", 100, 0]);
  search("");
  answer(page(0, { version: 8 }));
  answer(page(100, { version: 8 }));
  find(".ib-download").click();
  answer(page(0, { version: 8, items: keys(0, 60) }));
  expect(wait()).toEqual(["errors", 60, "", 2000, 8]);
  answer(page(60, { version: 8, items: keys(60, 44) }));
  expect(find(".ib-download").textContent).toBe("CSV");
  receive({ started_s: 5 }); // it was run again: what failed is asked for
  expect(wait()).toEqual(["errors", 0, "", 100, 0]);
});

it("does nothing with the list of a search that is no more", () => {
  const { answer, find, press, search } = mount();
  answer(page(0));
  search("k1");
  press.mockClear();
  find(".ib-retry_failed").click();
  find(".ib-download").click();
  expect(press).not.toHaveBeenCalled();
  expect(find(".ib-retry_failed").getAttribute("aria-busy")).toBe("true");
});

it.each([
  ["completed", 0, "Nothing has failed."],
  ["rolled_back", 1, "Rolled back: what failed is not on record. The log tells of it."],
  ["completed", 1, "What failed is on record no more."],
  ["running", 1, "What failed is not on record yet."],
] as const)("says of a session that is %s, of which %i failed, why it lists nothing", (state, failed, words) => {
  const { answer, find } = mount({ state, counts: counts({ failed, total: 3 }) });
  answer(page(0, { groups: [], total: 0, of: 0, items: [] }));
  expect(find(".ib-empty").textContent).toBe(words);
});
