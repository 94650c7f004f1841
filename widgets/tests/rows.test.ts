import { beforeEach, expect, it, vi } from "vitest";
import { csv, fileName, tsv } from "../src/csv";
import { RowsPiece } from "../src/rows";
import type { Group, Head, Update } from "../src/schema";
import { Store } from "../src/store";
import { context, group, head, item, update } from "./samples";

const GROUPS = [
  group(1, { name: "Kendari", failed: 2, extra: { Parts: 310 } }),
  group(2, { name: "Sofifi", status: "failed", failed: 15, error: "Out of memory", extra: { Parts: 1455 } }),
  group(3, { name: "Tembaga", extra: { Parts: 20 } }),
];

let now_s = 100;

function mount(first: Partial<Update>) {
  const store = new Store();
  const press = vi.fn();
  const piece = new RowsPiece(context(store, { press, isPending: () => true }));
  document.body.replaceChildren(piece.node);
  let seq = 0;
  const receive = (changes: Partial<Update>, at_s = now_s): void => {
    seq += 1;
    store.fold(update(seq, changes), at_s);
    piece.render(at_s);
  };
  receive({ whole: true, ...first });
  const find = <T extends HTMLElement>(selector: string): T => piece.node.querySelector<T>(selector)!;
  return { store, press, piece, receive, find };
}

const grouped = (groups: Group[] = GROUPS) => mount({ groups, columns: ["Parts"] });
const isShown = (node: HTMLElement): boolean => !node.closest("[hidden]");

/** The names of the rows, from above. */
function names(piece: RowsPiece): string[] {
  const rows = [...piece.node.querySelectorAll<HTMLElement>(".ib-rows .ib-row")].filter(isShown);
  rows.sort((a, b) => Number(a.getAttribute("aria-rowindex")) - Number(b.getAttribute("aria-rowindex")));
  return rows.map((row) => row.querySelector(".ib-subject")!.textContent);
}

function key(node: Element, name: string): void {
  node.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
}

beforeEach(() => {
  vi.spyOn(performance, "now").mockImplementation(() => now_s * 1000);
  now_s = 100;
});

it("sorts by any column, the other way round, and back to the natural order", () => {
  const { piece, find } = grouped();
  const head = find<HTMLButtonElement>(".ib-head .ib-extra button");
  expect(head.textContent).toBe("Parts");
  head.click();
  expect(names(piece)).toEqual(["Tembaga", "Kendari", "Sofifi"]);
  expect(head.parentElement!.getAttribute("aria-sort")).toBe("ascending");
  head.click();
  expect(names(piece)).toEqual(["Sofifi", "Kendari", "Tembaga"]);
  head.click();
  expect(names(piece)).toEqual(["Kendari", "Sofifi", "Tembaga"]);
  expect(head.parentElement!.getAttribute("aria-sort")).toBe("none");
});

it("keeps rows without a value last, whichever way it sorts", () => {
  const { piece, find } = grouped();
  const head = find<HTMLButtonElement>(".ib-head .ib-error button");
  for (const _ of [1, 2]) {
    head.click();
    expect(names(piece)[0]).toBe("Sofifi");
    expect(names(piece).slice(1)).toEqual(["Kendari", "Tembaga"]);
  }
});

it("sorts anew at most once a second while it runs, though the rows themselves are always fresh", () => {
  const { piece, find, receive } = grouped();
  find<HTMLButtonElement>(".ib-head .ib-failures button").click();
  expect(names(piece)).toEqual(["Tembaga", "Kendari", "Sofifi"]);
  receive({ groups: [group(3, { name: "Tembaga", failed: 9 })] }, now_s + 0.5);
  expect(names(piece)[0]).toBe("Tembaga");
  expect(find(".ib-rows .ib-failures").textContent).toBe("9");
  receive({}, now_s + 1.1);
  expect(names(piece)).toEqual(["Kendari", "Tembaga", "Sofifi"]);
});

it("filters by status and by text, and says how many are left", () => {
  const { piece, find } = grouped();
  const chips = [...piece.node.querySelectorAll<HTMLElement>(".ib-chip")].filter(isShown);
  expect(chips.map((chip) => chip.textContent)).toEqual(["failed1", "with failures1", "completed1"]);
  chips[1]!.click();
  expect(chips[1]!.getAttribute("aria-pressed")).toBe("true");
  expect(names(piece)).toEqual(["Kendari"]);
  chips[2]!.click();
  expect(names(piece)).toEqual(["Kendari", "Tembaga"]);
  const input = find<HTMLInputElement>("input");
  input.value = "TEM";
  input.dispatchEvent(new Event("input"));
  expect(names(piece)).toEqual(["Tembaga"]);
  expect(find(".ib-shown").textContent).toBe("1 of 3");
  for (const chip of chips.slice(1)) chip.click();
  input.value = "memory";
  input.dispatchEvent(new Event("input"));
  expect(names(piece)).toEqual(["Sofifi"]);
  input.value = "nothing like it";
  input.dispatchEvent(new Event("input"));
  expect(find(".ib-empty").textContent).toBe("No batch matches the filter.");
});

it("survives a whole update in which filtered groups are gone", () => {
  const { piece, find, receive } = grouped();
  find(".ib-chip[data-is='completed']").click();
  receive({ whole: true, groups: [group(1)] });
  expect(names(piece)).toEqual(["Batch 1"]);
});

it("asks for the items of a row that is opened, and shows them with their attempts", () => {
  const { press, store, piece, find } = grouped();
  find(".ib-rows .ib-row").click();
  expect(press).toHaveBeenCalledWith("items", 1, 0);
  expect(find(".ib-note").textContent).toContain("Reading");
  const tries = [{ attempt: 1, seconds: 0.5, error: "TimeoutError: Exceeded 5 s" }];
  const text = { error: "<b>reset</b>", traceback: "shop.py:12 in fetch: get(url)\nnotebook cell:3 in parse: int(text)" };
  const failed = { key: "440", status: "failed" as const, attempts: 2, seconds: 1, ...text, tries };
  store.answer({ kind: "rows", id: "", group: 1, offset: 0, total: 250, items: Array<typeof failed>(100).fill(failed) });
  piece.render(now_s);
  expect(find(".ib-why").textContent).toBe("<b>reset</b>");
  expect(find(".ib-entry .ib-where").textContent).toBe("shop.py:12 in fetch: get(url)notebook cell:3 in parse: int(text)");
  expect(find(".ib-entry .ib-where").children.length).toBe(2);
  expect(find(".ib-entry .ib-tries li").textContent).toBe("attempt 1: TimeoutError: Exceeded 5 s (0.5 s)");
  find(".ib-more").click();
  expect(press).toHaveBeenLastCalledWith("items", 1, 100);
});

it("asks again when more of the open group is done, at most once a second", () => {
  const { press, find, receive } = grouped([group(1, { status: "running", done: 1, ended_s: 0 })]);
  find(".ib-rows .ib-row").click();
  for (let done = 2; done < 9; done += 1) {
    receive({ groups: [group(1, { status: "running", done, ended_s: 0 })] }, now_s + done / 10);
  }
  expect(press).toHaveBeenCalledTimes(1);
  receive({}, now_s + 1.1);
  receive({}, now_s + 2.5);
  expect(press).toHaveBeenCalledTimes(2);
});

it("is worked by the keyboard: arrows walk, Enter opens, Escape closes and gives the focus back", () => {
  const { piece, find } = grouped();
  const focused = (): string => document.activeElement!.querySelector(".ib-subject")!.textContent;
  find(".ib-rows .ib-row").focus();
  key(document.activeElement!, "ArrowDown");
  expect(focused()).toBe("Sofifi");
  expect(piece.node.querySelectorAll(".ib-rows .ib-row[tabindex='0']").length).toBe(1);
  key(document.activeElement!, "Enter");
  expect(find(".ib-details .ib-title").textContent).toBe("Sofifi");
  expect(document.activeElement!.getAttribute("aria-selected")).toBe("true");
  find(".ib-close").focus();
  key(find(".ib-close"), "Escape");
  expect(find(".ib-details").hidden).toBe(true);
  expect(focused()).toBe("Sofifi");
});

it("opens the whole error of an item where there are no groups", () => {
  const { piece, find } = mount({ head: head(), items: [item("a"), item("b", { status: "failed", error: "line 1\nline 2" })] });
  expect(names(piece)).toEqual(["b", "a"]);
  [...piece.node.querySelectorAll<HTMLElement>(".ib-of-items .ib-rows .ib-row")][0]!.click();
  expect(find(".ib-whole").textContent).toBe("line 1\nline 2");
});

it("writes what a spreadsheet reads as text, never as a formula", () => {
  expect(csv([["=1+1", "+2", "-3", "@x", -4, "a,b", 'say "hi"', "two\nlines", NaN]])).toBe(
    `'=1+1,'+2,'-3,'@x,-4,"a,b","say ""hi""","two\nlines",\r\n`,
  );
  expect(tsv([["a\tb", "=x"], [1, ""]])).toBe("a b\t'=x\n1\t");
});

it("guards a formula also behind what is not seen, and one in full-width signs", () => {
  const starts = ["\u200b=1", " \n-1", "\uff1d1+1", "\uff20SUM", "\ufeff+1", "\nx", "\u202e@x"];
  for (const cell of starts) expect(csv([[cell]])).toMatch(/^"?'/);
  expect(csv([[" a = b", "x-1", "5 + 5", "\u5168\u89d2"]])).toBe(" a = b,x-1,5 + 5,\u5168\u89d2\r\n");
});

it("names the file after the session, safely", () => {
  expect(fileName("wishlist refresh")).toBe("wishlist-refresh.csv");
  expect(fileName("../../etc/passwd")).toBe("etc-passwd.csv");
  expect(fileName("///")).toBe("session.csv");
});

it("calls a partition by what it is of, since its number has a column, and whole in the tooltip", () => {
  const { piece } = mount({ groups: [group(3, { name: "Partition 3 (Sofifi)" }), group(4, { name: "Batch 4" })] });
  expect(names(piece)).toEqual(["Sofifi", "Batch 4"]);
  const subjects = [...piece.node.querySelectorAll<HTMLElement>(".ib-rows .ib-subject")].filter(isShown);
  expect(subjects.map((node) => node.title)).toContain("Partition 3 (Sofifi)");
});

it("says why there is nothing to see, and nothing that it cannot know", () => {
  const none = { pending: 0, running: 0, completed: 0, failed: 0, timeout: 0, cancelled: 0, skipped: 0, total: 300 };
  const open = { ...head().breaker, state: "open" as const };
  const empty = (changes: Partial<Head>): string | undefined =>
    [...mount({ head: head({ counts: none, ...changes }) }).piece.node.querySelectorAll(".ib-empty")].map((node) => node.textContent).find(Boolean);
  expect(empty({ counts: { ...none, total: 0 } })).toBe("There was nothing to do.");
  expect(empty({ state: "planned" })).toBe("Nothing has started yet.");
  expect(empty({ state: "running" })).toBe("The first results are on their way.");
  expect(empty({ state: "running", waiting: "it starts at 22:00 (Europe/Berlin)" })).toBe("Nothing has started yet.");
  expect(empty({ state: "running", breaker: open })).toBe("The service fails: no item has ended so far.");
  expect(empty({ state: "failed", counts: { ...none, skipped: 300 } })).toBe(
    "Nothing has ended; what is left runs at the next start.",
  );
  expect(empty({ state: "completed", counts: { ...none, completed: 300 } })).toBe(
    "Everything was recorded before; nothing ran.",
  );
});

it("puts what failed first once all is over, and not under the pointer or the keyboard", () => {
  const groups = [group(1), group(2, { failed: 1 }), group(3), group(4, { status: "failed", failed: 15 })];
  const { piece, receive, find } = mount({ groups });
  const inOrder = groups.map(({ name }) => name);
  expect(names(piece)).toEqual(inOrder);
  const row = find(".ib-rows .ib-row");
  row.focus();
  now_s += 2;
  receive({ head: head({ state: "completed", can: [] }) });
  expect(names(piece)).toEqual(inOrder);
  row.blur();
  piece.render(now_s);
  expect(names(piece)).toEqual(["Batch 2", "Batch 4", "Batch 1", "Batch 3"]);
  now_s += 2;
  receive({ head: head({ state: "running" }), groups: [group(2, { status: "running", failed: 1 })] });
  expect(names(piece)).toEqual(inOrder);
});

it("tells a batch with failures from one that completed, and one of a single failure by its icon", () => {
  const { find } = mount({ groups: [group(1, { failed: 1 })] });
  expect(find(".ib-rows .ib-status").textContent).toBe("with failures");
  expect(find(".ib-rows .ib-status").getAttribute("data-is")).toBe("partly");
});

it("leaves the latest items, and rows that are sorted, where they are while somebody is at them", () => {
  const items = mount({ items: [item("a"), item("b")] });
  const hovered = vi.spyOn(items.find(".ib-of-items"), "matches").mockReturnValue(true);
  items.receive({ items: [item("b"), item("c")] }, (now_s += 2));
  expect(names(items.piece)).toEqual(["b", "a"]);
  expect(items.find(".ib-aside").textContent).toBe("Latest and failed items, held while you are there");
  hovered.mockReturnValue(false);
  items.piece.render(now_s);
  expect(names(items.piece)).toEqual(["c", "b"]);
  expect(items.find(".ib-aside").textContent).toBe("Latest and failed items");

  const { piece, find, receive } = grouped();
  find<HTMLButtonElement>(".ib-head .ib-failures button").click();
  const before = names(piece);
  const pointed = vi.spyOn(find(".ib-of-groups"), "matches").mockReturnValue(true);
  receive({ groups: [group(1, { name: "Kendari", failed: 16 })] }, (now_s += 2));
  expect(names(piece)).toEqual(before);
  pointed.mockReturnValue(false);
  receive({ groups: [group(3, { name: "Tembaga" })] }, (now_s += 2));
  expect(names(piece)).not.toEqual(before);
});

it("has no columns of items where each group is one, until one has more", () => {
  const one = { items: 1, done: 1 };
  const { find, receive, piece } = grouped([group(1, one), group(2, { ...one, failed: 1, status: "failed" })]);
  const titles = (): string[] =>
    [...piece.node.querySelectorAll(".ib-of-groups .ib-head .ib-cell")].map((cell) => cell.textContent!.trim());
  expect(titles()).not.toContain("Items");
  expect(titles()).not.toContain("Failed");
  expect(find(".ib-of-groups").classList.contains("ib-of-single")).toBe(true);
  now_s += 2;
  receive({ groups: [group(3, { items: 15 })] });
  expect(titles()).toContain("Items");
  expect(titles()).toContain("Failed");
  expect(find(".ib-of-groups").classList.contains("ib-of-single")).toBe(false);
});
