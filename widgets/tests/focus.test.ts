// Focus: whatever the keyboard can reach keeps its keys, or Lumino takes them for the notebook's: "x" cuts the cell.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Quoted } from "../lab/src/quoted";
import { tool } from "../lab/src/tool";
import type { BreakerMove, Update } from "../src/schema";
import { Store } from "../src/store";
import { View, VIEWS } from "../src/view";
import { context, group, head, item, update } from "./samples";

const REACHED = "a[href], button, input, select, summary, textarea, [tabindex], [contenteditable]";

const notes = ["one", "two", "three", "four"];
const moves: BreakerMove[] = Array.from({ length: 8 }, (_, at) => ({ at_s: at, state: "open", failures: 3, openings: 1, limit_group: "" }));
const log = [{ number: 1, at_s: 1, level: "bad" as const, text: "an error", group: 0 }];
const failed = item("bad", { status: "failed", error: "404" });
const can: Update["head"]["can"] = ["pause", "resume", "cancel", "lift", "retry_failed", "adjust"];
const STATES: Record<string, Partial<Update>> = {
  "running, with groups": { groups: [group(1), group(2, { status: "failed", failed: 3, error: "404" })], head: head({ can, notes }), moves, log },
  "running, with items": { items: [item("a"), failed], failures: [failed], head: head({ can, notes }), moves, log },
  "ended": { items: [item("a"), failed], failures: [failed], head: head({ state: "completed", can: ["retry_failed"] }), moves, log },
  "planned": { head: head({ state: "planned", can: [] }) },
  "of another process": { head: head({ where: "in process 42", untold: true }), groups: [group(1)] },
};

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

function unguarded(node: HTMLElement): string[] {
  const reached = [...node.querySelectorAll(REACHED)].filter((each) => !each.hasAttribute("data-lm-suppress-shortcuts"));
  return reached.map((each) => each.cloneNode() as Element).map((each) => each.outerHTML);
}

it.each(VIEWS.flatMap((view) => Object.keys(STATES).map((state) => [view, state] as const)))("the view %s, %s, keeps the keys of all it has", (name, state) => {
  const store = new Store();
  store.fold(update(1, { whole: true, ...STATES[state] }), 0);
  const view = new View(name, context(store));
  document.body.append(view.node);
  view.render(0);
  for (const tab of view.node.querySelectorAll<HTMLElement>("[role=tab]")) {
    tab.click();
    view.render(2);
    view.node.querySelector<HTMLElement>(".ib-tab:not([hidden]) .ib-rows .ib-row")?.click();
    view.render(4);
    expect(unguarded(view.node)).toEqual([]);
  }
  view.node.querySelector<HTMLElement>(".ib-rows .ib-row")?.click();
  view.render(6);
  expect(unguarded(view.node)).toEqual([]);
});

it("what JupyterLab's tab and side bar add keeps its keys as well", () => {
  expect(unguarded(new Quoted().node)).toEqual([]);
  expect(tool("plus", "New", vi.fn()).hasAttribute("data-lm-suppress-shortcuts")).toBe(true);
});

it("a tab is opened by its name, and one that is not offered any more gives way to the first", async () => {
  const store = new Store();
  store.fold(update(1, { whole: true }), 0);
  let isOffered = true;
  const node = document.createElement("div");
  const more = [{ name: "errors", title: () => "Errors", isOffered: () => isOffered, piece: { node, render: vi.fn() } }];
  const view = new View("panel", context(store), { more });
  document.body.append(view.node);
  view.render(0);
  view.open("errors");
  view.render(1);
  const tabs = [...view.node.querySelectorAll<HTMLElement>("[role=tab]")];
  expect(document.activeElement).toBe(tabs.at(-1));
  expect(node.hidden).toBe(false);
  view.open("no such tab");
  expect(tabs.at(-1)!.getAttribute("aria-selected")).toBe("true");
  isOffered = false;
  view.render(2);
  expect([tabs[0]!.getAttribute("aria-selected"), tabs.at(-1)!.hidden, node.hidden]).toEqual(["true", true, true]);
  tabs[0]!.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  expect(tabs.at(-2)!.getAttribute("aria-selected")).toBe("true");
});
