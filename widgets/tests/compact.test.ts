import type { RenderProps } from "@anywidget/types";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import panel from "../src/panel";
import type { Head, List } from "../src/schema";
import type { Traits } from "../src/sessions";
import { counts, group, head, Model, update } from "./samples";

let mounted = 0;

function render(model: Model): { el: HTMLElement; close: () => void } {
  const el = document.createElement("div");
  document.body.append(el);
  return { el, close: panel.render({ model, el } as unknown as RenderProps<Traits>) };
}

function line(changes: Partial<Head> = {}) {
  mounted += 1;
  const first = JSON.stringify(update(1, { whole: true, head: head(changes), groups: [group(1)] }));
  const model = new Model({ panel_id: `c${mounted}`, initial: first, compact: true });
  return { model, ...render(model) };
}

const frame = (): Promise<unknown> => vi.advanceTimersByTimeAsync(20);
const words = (el: Element, selector: string): string => el.querySelector(selector)!.textContent;
const seen = (el: Element, selector: string): boolean => {
  const node = el.querySelector<HTMLElement>(selector)!;
  return node.closest("[hidden]") === null;
};
const offered = (el: Element): string[] => [...el.querySelectorAll<HTMLElement>(".ib-compact .ib-buttons button:not([hidden])")].map((button) => button.title);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

describe("a line", () => {
  it("opens to the whole panel in its place, and closes again", async () => {
    const { el, close } = line();
    const button = el.querySelector<HTMLElement>(".ib-fold")!;
    expect([seen(el, ".ib-compact"), seen(el, ".ib-book"), button.getAttribute("aria-expanded")]).toEqual([true, false, "false"]);
    button.click();
    await frame();
    expect([seen(el, ".ib-compact"), seen(el, ".ib-book"), button.getAttribute("aria-expanded")]).toEqual([false, true, "true"]);
    expect(words(el, ".ib-rows .ib-subject")).toBe("Batch 1");
    button.click();
    await frame();
    expect([seen(el, ".ib-compact"), seen(el, ".ib-book")]).toEqual([true, false]);
    close();
  });

  it.each<[string, Partial<Head>, string, string[]]>([
    ["running", {}, "1 m left", ["Pause", "Cancel"]],
    ["waiting", { waiting: "next batch in 12 s" }, "next batch in 12 s", ["Pause", "Cancel"]],
    ["paused", { state: "paused", can: ["resume", "cancel", "adjust"] }, "paused", ["Resume", "Cancel"]],
    ["planned", { state: "planned", elapsed_s: 0, can: ["resume"] }, "not started", ["Resume"]],
    ["completed", { state: "completed", can: ["retry_failed"] }, "in 1 m 00 s", ["Retry failed"]],
    ["failed", { state: "failed", reason: "401: no such key", can: ["resume", "retry_failed"] }, "401: no such key, after 1 m 00 s", ["Resume", "Retry failed"]],
    ["cancelled", { state: "cancelled", can: ["resume"] }, "cancelled, after 1 m 00 s", ["Resume"]],
  ])("of a session that is %s says what to know and offers two buttons at most", (_, changes, aside, buttons) => {
    const { el, close } = line({ eta_low_s: 60, eta_high_s: 60, ...changes });
    expect(words(el, ".ib-compact .ib-aside")).toBe(aside);
    expect(offered(el)).toEqual(buttons);
    close();
  });

  it("counts what failed, and has short words for long figures", () => {
    const { el, close } = line({ counts: counts({ completed: 316_000, failed: 2_000, timeout: 16, total: 1_000_000 }) });
    expect(words(el, ".ib-figures")).toBe("318K of 1M");
    expect(words(el, ".ib-fails")).toBe("2,016 failed");
    expect(el.querySelector(".ib-fails")!.hasAttribute("data-none")).toBe(false);
    close();
  });

  it("tells what became of a press in the place of the time left", async () => {
    const { model, el, close } = line();
    el.querySelector<HTMLElement>(".ib-compact .ib-cancel")!.click();
    await frame();
    expect(model.sent.at(-1)).toMatchObject({ kind: "command", name: "cancel" });
    expect([words(el, ".ib-compact .ib-said"), seen(el, ".ib-compact .ib-said"), seen(el, ".ib-compact .ib-aside")]).toEqual(["cancelling\u2026", true, false]);
    close();
  });
});

describe("several sessions", () => {
  const one = JSON.stringify(update(1, { whole: true, head: head({ name: "one" }) }));
  const two = JSON.stringify(update(1, { whole: true, head: head({ name: "two" }) }));

  function list(panels = ["one", "two"]) {
    mounted += 1;
    const names = panels.map((name) => `${name}${mounted}`);
    const [first, second] = names as [string, string];
    const initial: List = { kind: "list", panels: names, initial: { [first]: one, [second]: two }, told: [] };
    const model = new Model({ panel_id: `l${mounted}`, view: "sessions", initial: JSON.stringify(initial) });
    return { model, names, ...render(model) };
  }

  const shown = (el: Element): string[] => [...el.querySelectorAll(".ib-compact .ib-name")].map((name) => name.textContent);

  it("stand under each other; what one is told reaches that one, and what it says goes under its name", async () => {
    const { model, names, el, close } = list();
    expect(shown(el)).toEqual(["one", "two"]);
    model.receive({ kind: "list", panels: names, initial: {}, told: [names[1]] }, update(2, { head: head({ name: "two", state: "paused", can: ["resume"] }) }));
    await frame();
    const [, second] = el.querySelectorAll("li");
    expect([words(second!, ".ib-aside"), offered(second!)]).toEqual(["paused", ["Resume"]]);
    second!.querySelector<HTMLElement>(".ib-compact .ib-resume")!.click();
    expect(model.sent.at(-1)).toMatchObject({ kind: "within", panel: names[1], message: { kind: "command", name: "resume" } });
    close();
    expect([model.handlers.size, vi.getTimerCount()]).toEqual([0, 0]);
  });

  it("change places when what runs changes, but not while the keyboard is in the list", async () => {
    const { model, names, el, close } = list();
    const turned = { kind: "list", panels: names.toReversed(), initial: {}, told: [] };
    el.querySelector<HTMLElement>(".ib-fold")!.focus();
    model.receive(turned);
    expect(shown(el)).toEqual(["one", "two"]);
    el.querySelector<HTMLElement>(".ib-fold")!.blur();
    await frame();
    expect(shown(el)).toEqual(["two", "one"]);
    close();
  });

  it("come and go", () => {
    const { model, names, el, close } = list();
    const third = update(1, { whole: true, head: head({ name: "three" }) });
    model.receive({ kind: "list", panels: ["new", names[0]], initial: {}, told: ["new"] }, third);
    vi.advanceTimersByTime(20);
    expect(shown(el)).toEqual(["three", "one"]);
    model.receive({ kind: "list", panels: [], initial: {}, told: [] });
    expect([shown(el), seen(el, ".ib-none")]).toEqual([[], true]);
    close();
  });

  it("open when the rest of what they show has come, asking for it once", async () => {
    const { model, names, el, close } = list();
    const button = el.querySelector<HTMLElement>(".ib-fold")!;
    button.click();
    await frame();
    expect(model.sent.at(-1)).toMatchObject({ panel: names[0], message: { kind: "command", name: "open" } });
    expect(button.getAttribute("aria-expanded")).toBe("false");
    model.receive({ kind: "list", panels: names, initial: {}, told: [names[0]] }, update(2, { whole: true, groups: [group(1)] }));
    await frame();
    expect(button.getAttribute("aria-expanded")).toBe("true");
    await vi.advanceTimersByTimeAsync(3000);
    expect(button.getAttribute("aria-expanded")).toBe("true");
    button.click();
    button.click();
    await frame();
    expect(button.getAttribute("aria-expanded")).toBe("true");
    expect(model.sent.filter((message) => JSON.stringify(message).includes('"open"')).length).toBe(1);
    close();
  });

  it("open with what is known when nobody answers", async () => {
    const { el, close } = list();
    el.querySelector<HTMLElement>(".ib-fold")!.click();
    await vi.advanceTimersByTimeAsync(1100);
    expect(el.querySelector(".ib-fold")!.getAttribute("aria-expanded")).toBe("true");
    close();
  });
});

describe("leaving by Escape", () => {
  it("puts the keyboard on the cell, after what is open in the panel was closed", async () => {
    const cell = document.createElement("div");
    cell.className = "jp-Cell";
    cell.tabIndex = 0;
    document.body.append(cell);
    const { el, close } = line();
    cell.append(el);
    const press = (node: Element): unknown => node.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true }));
    el.querySelector<HTMLElement>(".ib-fold")!.click();
    await frame();
    const row = el.querySelector<HTMLElement>(".ib-rows .ib-row")!;
    row.click();
    await frame();
    press(row);
    await frame();
    expect(seen(el, ".ib-details")).toBe(false);
    expect(document.activeElement).not.toBe(cell);
    press(document.activeElement!);
    expect(document.activeElement).toBe(cell);
    close();
  });
});
