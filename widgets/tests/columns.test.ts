import { expect, it } from "vitest";
import { groupColumns } from "../src/columns";
import { survey } from "../src/survey";
import type { Group } from "../src/schema";
import { group } from "./samples";

function cells(row: Group): Record<string, HTMLElement> {
  return Object.fromEntries(
    groupColumns([], () => 0).map((column) => {
      const cell = document.createElement("span");
      column.make(cell)(row);
      return [column.name, cell];
    }),
  );
}

it("shows as failed what failed, and not a partition that was only cancelled because of it", () => {
  const one = { items: 1, done: 1, failed: 1 };
  const failed = cells(group(3, { ...one, status: "failed", error: "Out of memory" }));
  expect([failed.failures!.textContent, failed.error!.textContent]).toEqual(["1", "Out of memory"]);
  expect(failed.items!.querySelector<HTMLElement>(".ib-bad")!.style.width).toBe("100%");
  for (const discarded of [one, { ...one, failed: 0 }]) {
    const cancelled = cells(group(1, { ...discarded, status: "cancelled", error: "cancelled" }));
    expect([cancelled.failures!.textContent, cancelled.error!.textContent]).toEqual(["", ""]);
    const bars = [...cancelled.items!.querySelectorAll<HTMLElement>("i")];
    expect(bars.map((bar) => bar.style.width)).toEqual(["0%", "0%"]);
  }
  expect(cells(group(2, { status: "cancelled", failed: 4 })).failures!.textContent).toBe("4");
});

it("counts down to the deadline in a column of the workload's", () => {
  const deadline = { title: "Expires in", numeric: false, chars: 9, least: 9, empty: false };
  const [column] = groupColumns([deadline], () => Date.parse("2026-11-30T09:10:00Z") / 1000).slice(4);
  const cell = document.createElement("span");
  column!.make(cell)(group(1, { extra: { "Expires in": "2026-12-02T08:10:00Z" } }));
  expect(cell.textContent).toBe("47 h 00 m");
});

it("knows the columns in which nothing stands", () => {
  const rows = [group(1, { extra: { State: "running", "Expires in": "" } }), group(2)];
  const { extras } = survey(rows, ["State", "Expires in"]);
  expect(extras.map(({ title, empty }) => [title, empty])).toEqual([["State", false], ["Expires in", true]]);
});

it("leaves out what a status says already where each group is one item", () => {
  const names = (single: boolean): string[] => groupColumns([], () => 0, single).map(({ name }) => name);
  expect(names(false)).toEqual(["number", "status", "subject", "items", "failures", "time", "error"]);
  expect(names(true)).toEqual(["number", "status", "subject", "time", "error"]);
});
