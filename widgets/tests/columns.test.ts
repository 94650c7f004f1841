import { expect, it } from "vitest";
import { groupColumns } from "../src/columns";
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
