import { beforeEach, expect, it, vi } from "vitest";
import type { Head } from "../src/schema";
import { SettingsPiece } from "../src/settings";
import { Store } from "../src/store";
import { context, head, update } from "./samples";

const window = { used: 17, limit: 20, most: 40, per_s: 2, unit: "requests" };
const limits: Partial<Head> = { concurrency: 3, most_concurrency: 6, windows: [window] };
let pending = false;
const press = vi.fn((..._: (string | number)[]): void => void (pending = true));

beforeEach(() => {
  pending = false;
  press.mockClear();
});

function open(changes: Partial<Head> = {}) {
  const store = new Store();
  const piece = new SettingsPiece(context(store, { press, isPending: () => pending, redraw: () => piece.render() }));
  let seq = 0;
  const receive = (more: Partial<Head> = {}): void => {
    store.fold(update((seq += 1), { whole: seq === 1, head: head({ ...limits, ...more }) }), 100);
    piece.render();
  };
  receive(changes);
  const inputs = (): HTMLInputElement[] => [...piece.node.querySelectorAll("input")];
  const type = (index: number, value: string): void => {
    inputs()[index]!.value = value;
    inputs()[index]!.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const [apply, reset] = [...piece.node.querySelectorAll("button")] as [HTMLButtonElement, HTMLButtonElement];
  const submit = (): boolean => piece.node.dispatchEvent(new Event("submit", { cancelable: true }));
  return { node: piece.node, receive, inputs, type, apply, reset, submit, render: () => piece.render(), values: () => inputs().map((input) => input.value) };
}

it("says the unit of every field, and how far it goes", () => {
  const { node, inputs } = open();
  expect([...node.querySelectorAll("label")].map((label) => label.textContent)).toEqual(["attempts at a time", "requests per 2 s"]);
  expect([...node.querySelectorAll(".ib-field small")].map((hint) => hint.textContent)).toEqual(["at most 6", "at most 40"]);
  for (const input of inputs()) {
    expect(node.querySelector(`label[for=${input.id}]`)).not.toBeNull();
    expect(node.querySelector(`#${input.getAttribute("aria-describedby")}`)!.textContent).toMatch(/^at most/);
  }
});

it("follows what holds until it is edited, and keeps what was typed while updates come", () => {
  const { receive, type, values } = open();
  receive({ concurrency: 5 });
  expect(values()).toEqual(["5", "20"]);
  type(1, "30");
  receive({ concurrency: 4, windows: [{ ...window, limit: 10 }] });
  expect(values()).toEqual(["5", "30"]);
});

it("sends every limit in order, and holds them until the kernel has answered", () => {
  const { receive, type, values, submit, render, node } = open();
  type(1, "30");
  submit();
  expect(press.mock.calls).toEqual([["adjust", 3, 30]]);
  receive();
  expect(values()).toEqual(["3", "30"]);
  expect(node.getAttribute("aria-busy")).toBe("true");
  pending = false;
  render();
  expect(values()).toEqual(["3", "30"]);
  receive({ windows: [{ ...window, limit: 25 }] });
  expect(values()).toEqual(["3", "25"]);
  expect(node.getAttribute("aria-busy")).toBeNull();
});

it("says what is wrong beside the field, and sends nothing", () => {
  const { node, type, submit, apply, inputs } = open();
  for (const [index, wrong, words] of [[0, "2.5", "a whole number from 1 to 6"], [0, "7", "a whole number from 1 to 6"], [1, "0", "a number from 1 to 40"], [1, "", "a number from 1 to 40"]] as const) {
    type(index, wrong);
    expect(inputs()[index]!.getAttribute("aria-invalid")).toBe("true");
    expect(node.querySelectorAll(".ib-field small")[index]!.textContent).toBe(words);
    submit();
    type(index, "2");
  }
  expect(press).not.toHaveBeenCalled();
  expect(apply.disabled).toBe(false);
});

it("goes back to what the session was made with", () => {
  const { reset, receive } = open();
  reset.click();
  expect(press.mock.calls).toEqual([["adjust", 6, 40]]);
  pending = false;
  receive({ concurrency: 6, windows: [{ ...window, limit: 40 }] });
  receive({ concurrency: 6, windows: [{ ...window, limit: 40 }] });
  expect(reset.disabled).toBe(true);
});

it("gives the user's edits up on Escape", () => {
  const { node, type, values, apply } = open();
  type(0, "1");
  node.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  expect(values()).toEqual(["3", "20"]);
  expect(apply.disabled).toBe(true);
});

it("is disabled, with the reason, when nothing can be changed", () => {
  const { node, receive, type, values } = open();
  type(0, "1");
  receive({ state: "completed", can: [] });
  expect(node.querySelector("fieldset")!.disabled).toBe(true);
  expect(node.querySelector<HTMLElement>(".ib-means")!.textContent).toBe("The session has ended: its limits no longer apply.");
  expect(values()).toEqual(["3", "20"]);
  receive({ state: "planned", can: ["resume"] });
  expect(node.querySelector<HTMLElement>(".ib-means")!.textContent).toBe("The limits can be changed once the session runs.");
  receive({ where: "in process 42 on host", can: ["pause", "cancel"] });
  expect(node.querySelector<HTMLElement>(".ib-means")!.textContent).toBe("The limits are changed where the session runs.");
  receive();
  expect(node.querySelector<HTMLElement>(".ib-means")!.hidden).toBe(true);
});
