import { expect, it, vi } from "vitest";
import { ROW_PX, Table, type Column } from "../src/table";

const column: Column<string> = { name: "key", title: "Name", make: (cell) => (row) => void (cell.textContent = row) };
const many = Array.from({ length: 10_000 }, (_, index) => `row ${index}`);

function shown(table: Table<string>): string[] {
  const cells = [...table.node.querySelectorAll<HTMLElement>(".ib-rows .ib-cell")];
  return cells.map((cell) => cell.textContent).sort((a, b) => Number(a.slice(4)) - Number(b.slice(4)));
}

function scroll(table: Table<string>, index: number): void {
  table.node.scrollTop = index * ROW_PX;
  table.node.dispatchEvent(new Event("scroll"));
}

it("keeps a bounded number of nodes for 10,000 rows, wherever one looks", () => {
  const table = new Table([column], "test");
  table.show(many, 8);
  for (const index of [0, 3, 500, 9_991, 9_992, 20_000]) {
    scroll(table, index);
    expect(table.node.querySelectorAll(".ib-rows .ib-row").length).toBe(16);
  }
  expect(shown(table).at(-1)).toBe("row 9999");
});

it("shows the rows at the scroll position, each at its own place", () => {
  const table = new Table([column], "test");
  table.show(many, 8);
  scroll(table, 5000);
  const rows = shown(table);
  for (let index = 5000; index < 5008; index += 1) expect(rows).toContain(`row ${index}`);
  for (const row of table.node.querySelectorAll<HTMLElement>(".ib-rows .ib-row")) {
    const index = Number(row.textContent.slice(4));
    expect(row.style.transform).toBe(`translateY(${index * ROW_PX}px)`);
    expect(row.getAttribute("aria-rowindex")).toBe(String(index + 2));
  }
});

it("keeps the nodes when rows change, and lets go of those it no longer needs", () => {
  const table = new Table([column], "test");
  table.show(["a", "b"], 8);
  const node = table.node.querySelector(".ib-rows .ib-row");
  table.show(["a", "c", "d"], 8);
  expect(table.node.querySelector(".ib-rows .ib-row")).toBe(node);
  expect(table.node.querySelectorAll(".ib-rows .ib-row").length).toBe(3);
  table.show(["z"], 8);
  expect([...table.node.querySelectorAll(".ib-rows .ib-row")].map((row) => row.textContent)).toEqual(["z"]);
});

it("moves no row while the pointer or the keyboard is at the table", () => {
  const table = new Table([column], "test");
  document.body.append(table.node);
  const hovered = vi.spyOn(table.node, "matches").mockReturnValue(true);
  table.show(many, 8, 100);
  expect(table.node.scrollTop).toBe(0);
  hovered.mockReturnValue(false);
  table.show(many, 8, 100);
  expect(table.node.scrollTop).toBe(94 * ROW_PX);
  table.node.querySelector<HTMLElement>(".ib-rows .ib-row")!.focus();
  table.show(many, 8, 200);
  expect(table.node.scrollTop).toBe(94 * ROW_PX);
  table.node.remove();
});

it("follows the current row until the user scrolls by hand", () => {
  const table = new Table([column], "test");
  table.show(many, 8, 100);
  expect(table.node.scrollTop).toBe((100 + 2 - 8) * ROW_PX);
  table.node.dispatchEvent(new KeyboardEvent("keydown", { key: "Tab" }));
  table.show(many, 8, 101);
  expect(table.node.scrollTop).toBe(94 * ROW_PX);
  table.node.dispatchEvent(new Event("wheel"));
  scroll(table, 10);
  table.show(many, 8, 5000);
  expect(table.node.scrollTop).toBe(10 * ROW_PX);
});

it("says why it is empty", () => {
  const table = new Table([column], "test");
  table.show([], 8, -1, "Nothing has started yet.");
  expect(table.node.querySelector(".ib-empty")!.textContent).toBe("Nothing has started yet.");
  table.show(["a"], 8);
  expect(table.node.querySelector<HTMLElement>(".ib-empty")!.hidden).toBe(true);
});
