import type { RenderProps } from "@anywidget/types";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import panel from "../src/panel";
import type { Update } from "../src/schema";
import { counts, group, head, item, Model, SubshellKernel, update } from "./samples";

type Props = RenderProps<{ initial: string; panel_id: string; view: string }>;

const EVIL = '<img src=x onerror="alert(1)">';

let mounted = 0;

function mount(first: Update | null = update(1, { whole: true }), kernel: unknown = null): { model: Model; el: HTMLElement; close: () => void } {
  mounted += 1;
  const model = new Model({ panel_id: `p${mounted}`, initial: first ? JSON.stringify(first) : "" }, { kernel });
  const el = document.createElement("div");
  document.body.append(el);
  const close = panel.render({ model, el } as unknown as Props);
  return { model, el, close };
}

/** Two frames: the fake ones are up to that far apart after the clock was set back. */
const frame = (): Promise<unknown> => vi.advanceTimersByTimeAsync(40);
const words = (el: HTMLElement, selector: string): string => el.querySelector(selector)!.textContent;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  document.body.replaceChildren();
});

describe("opening and closing", () => {
  it("paints the trait at once and says hello", () => {
    const { model, el, close } = mount();
    expect(words(el, ".ib-name")).toBe("wishlist");
    expect(words(el, ".ib-line .ib-done")).toBe("6 of 10");
    expect(model.kinds()).toEqual(["hello"]);
    close();
  });

  it("leaves nothing behind: no listener, no node, no timer, and a goodbye", () => {
    const { model, el, close } = mount();
    close();
    expect(model.kinds()).toEqual(["hello", "bye"]);
    expect(model.handlers.size + model.watchers.size).toBe(0);
    expect(el.childElementCount).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("says hello again until it is answered, less and less often", async () => {
    const { model, close } = mount();
    await vi.advanceTimersByTimeAsync(8_000);
    expect(model.kinds()).toEqual(["hello", "hello", "hello"]);
    model.receive(update(9, { whole: true, pages: ["another"] }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(model.kinds()).toHaveLength(4);
    const over = head({ state: "completed" });
    model.receive(update(10, { whole: true, head: over, pages: ["another", model.page()] }));
    model.receive({ kind: "beat", at_s: 0, pages: [model.page()], always: [model.page()] });
    await vi.advanceTimersByTimeAsync(11_000);
    expect(model.kinds()).toHaveLength(4);
    close();
  });

  it("says goodbye while it is taken out of the page, and hello when it is put back", async () => {
    const { model, el, close } = mount();
    model.receive(update(2, { whole: true, pages: [model.page()] }));
    el.remove();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(model.kinds()).toEqual(["hello", "bye"]);
    document.body.append(el);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(model.kinds()).toEqual(["hello", "bye", "hello"]);
    close();
  });

  it("drawn anew goes on where it was: its tab, and what its store has folded", () => {
    const { model, el } = mount();
    el.querySelectorAll<HTMLButtonElement>("[role=tab]")[1]!.click();
    model.receive(update(2, { head: head({ name: "renamed" }) }));
    const root = el.firstElementChild;
    el.remove();
    const again = document.createElement("div");
    document.body.append(again);
    const close = panel.render({ model, el: again } as unknown as Props);
    expect(again.firstElementChild).toBe(root);
    expect(again.querySelectorAll("[role=tab]")[1]!.getAttribute("aria-selected")).toBe("true");
    expect(model.handlers.size).toBe(1);
    close();
    expect(model.handlers.size).toBe(0);
  });

  it("displayed twice shows the same in both", async () => {
    const { model, close } = mount();
    const second = document.createElement("div");
    document.body.append(second);
    const closeSecond = panel.render({ model, el: second } as unknown as Props);
    model.receive(update(2, { head: head({ name: "both" }) }));
    await frame();
    expect([...document.querySelectorAll(".ib-name")].map((node) => node.textContent)).toEqual(["both", "both"]);
    close();
    closeSecond();
  });

  it("waits for the kernel when there is no first state", async () => {
    const { model, el, close } = mount(null);
    model.receive(update(7, { whole: true, head: head({ name: "late" }) }));
    await frame();
    expect(words(el, ".ib-name")).toBe("late");
    close();
  });
});

describe("updates", () => {
  it("are drawn once a frame, into nodes that stay", async () => {
    const { model, el, close } = mount(update(1, { whole: true, groups: [group(1)] }));
    const nodes = [".ib-bar", ".ib-name", ".ib-rows .ib-row", ".ib-fact"].map((selector) => el.querySelector(selector));
    await frame();
    const asked = vi.spyOn(globalThis, "requestAnimationFrame");
    for (let seq = 2; seq < 30; seq += 1) model.receive(update(seq, { groups: [group(1, { done: seq })] }));
    expect(asked).toHaveBeenCalledTimes(1);
    expect(words(el, ".ib-figures")).toContain("15\u2009/");
    await frame();
    expect(words(el, ".ib-figures")).toContain("29\u2009/");
    expect([".ib-bar", ".ib-name", ".ib-rows .ib-row", ".ib-fact"].map((selector) => el.querySelector(selector))).toEqual(nodes);
    close();
  });

  it("that skip a number are followed by one Resync, not a flood", async () => {
    const { model, close } = mount();
    model.receive(update(1, { whole: true, pages: [model.page()] }));
    model.receive({ kind: "beat", at_s: 0, pages: [model.page()], always: [model.page()] });
    await vi.advanceTimersByTimeAsync(2500);
    for (let seq = 5; seq < 15; seq += 1) model.receive(update(seq));
    expect(model.kinds()).toEqual(["hello", "resync"]);
    await vi.advanceTimersByTimeAsync(2500);
    model.receive(update(15));
    expect(model.kinds().slice(0, 2)).toEqual(["hello", "resync"]);
    expect(model.kinds()).toHaveLength(3);
    model.receive(update(16, { whole: true, pages: [model.page()] }));
    await vi.advanceTimersByTimeAsync(2500);
    model.receive(update(17));
    expect(model.kinds()).toHaveLength(3);
    close();
  });

  it("show text as text, whatever it contains", async () => {
    const rows = { groups: [group(1, { name: EVIL, error: EVIL, status: "failed" })] };
    const evil = head({ name: EVIL, waiting: EVIL, notes: [EVIL] });
    const { model, el, close } = mount(update(1, { whole: true, head: evil, ...rows }));
    const items = [item(EVIL, { status: "failed", error: EVIL })];
    model.receive(update(2, { whole: true, head: { ...evil, state: "failed", reason: EVIL }, items }));
    await frame();
    expect(el.querySelector("img")).toBeNull();
    expect(words(el, ".ib-of-items .ib-error")).toBe("Error");
    expect(words(el, ".ib-of-items .ib-rows .ib-error")).toBe(EVIL);
    expect(el.querySelector(".ib-of-items .ib-rows .ib-error")!.getAttribute("title")).toBe(EVIL);
    expect(words(el, ".ib-ending span")).toBe(EVIL);
    close();
  });

  it("are bridged by local clocks while the session runs", async () => {
    const running = head({ waiting: "next batch in 12 s", elapsed_s: 60 });
    const { el, close } = mount(update(1, { whole: true, head: running }));
    await vi.advanceTimersByTimeAsync(5100);
    expect(words(el, ".ib-elapsed")).toBe("1 m 05 s elapsed");
    expect(words(el, ".ib-waiting")).toBe("next batch in 7 s");
    close();
  });

  it("stop the clocks when the process of the session has died, and say so", async () => {
    const dead = head({ state: "interrupted", reason: "process 42 on host ended", can: [], eta_high_s: null });
    const { el, close } = mount(update(1, { whole: true, head: dead }));
    await vi.advanceTimersByTimeAsync(5100);
    expect(words(el, ".ib-elapsed")).toBe("ran 1 m 00 s");
    expect(words(el, ".ib-state")).toBe("interrupted");
    expect(words(el, ".ib-ending span")).toBe("process 42 on host ended");
    close();
  });

  it("tell what completed with failures from what completed", async () => {
    const counts = { ...head().counts, pending: 0, running: 0, failed: 0, timeout: 0 };
    const { model, el, close } = mount(update(1, { whole: true, head: head({ state: "completed", counts }) }));
    await frame();
    expect([words(el, ".ib-state"), el.querySelector(".ib-state")!.getAttribute("data-is")]).toEqual(["completed", "completed"]);
    model.receive(update(2, { head: head({ state: "completed", counts: { ...counts, timeout: 1 } }) }));
    await frame();
    expect([words(el, ".ib-state"), el.querySelector(".ib-state")!.getAttribute("data-is")]).toEqual(["completed with failures", "partly"]);
    close();
  });

  it("say where a session runs that another process has", async () => {
    const followed = head({ where: "in process 42 on host", can: ["pause", "cancel"] });
    const { el, close } = mount(update(1, { whole: true, head: followed }));
    await frame();
    expect([words(el, ".ib-state"), words(el, ".ib-place")]).toEqual(["running", "in process 42 on host"]);
    const offered = [...el.querySelectorAll<HTMLButtonElement>(".ib-buttons button")].filter((button) => !button.hidden);
    expect(offered.map((button) => button.title)).toEqual(["Pause", "Cancel"]);
    close();
  });

  it("do not tell limits and a breaker that another process has", async () => {
    const followed = head({ where: "in process 42 on host", windows: [], untold: true });
    const { el, close } = mount(update(1, { whole: true, head: followed }));
    await frame();
    const facts = [...el.querySelectorAll<HTMLElement>(".ib-facts .ib-title")].map((fact) => fact.textContent);
    expect(facts).toEqual(["Rate now", "Journal"]);
    close();
  });

  it("stop the clocks when the session has ended", async () => {
    const { el, close } = mount(update(1, { whole: true, head: head({ state: "completed", eta_high_s: null }) }));
    await vi.advanceTimersByTimeAsync(5100);
    expect(words(el, ".ib-elapsed")).toBe("took 1 m 00 s");
    expect(el.querySelector<HTMLElement>(".ib-left")!.hidden).toBe(true);
    close();
  });
});

describe("what is shown", () => {
  it("offers the commands that make sense, and sends the one that is pressed", async () => {
    const { model, el, close } = mount();
    const offered = [...el.querySelectorAll<HTMLButtonElement>(".ib-buttons button")].filter((button) => !button.hidden);
    expect(offered.map((button) => button.textContent)).toEqual(["Pause", "Cancel"]);
    offered[1]!.click();
    await frame();
    expect(model.sent.at(-1)).toMatchObject({ kind: "command", name: "cancel" });
    expect(words(el, "[role=status]")).toBe("cancelling\u2026");
    expect(offered[1]!.getAttribute("aria-busy")).toBe("true");
    model.receive({ kind: "ack", id: model.sent.at(-1)!.id, ok: true, done: true, text: "cancelled" });
    await frame();
    expect(words(el, "[role=status]")).toBe("cancelled");
    expect(offered[1]!.hasAttribute("aria-busy")).toBe(false);
    close();
  });

  it("offers to lift a cool-down, and says why it holds", async () => {
    const cooling = { cool_down_s: 86_400, cool_why: "asked for 365 d: asked again in 24 h" };
    const { model, el, close } = mount(update(1, { whole: true, head: head({ ...cooling, can: ["pause", "lift", "cancel"] }) }));
    await frame();
    const button = el.querySelector<HTMLButtonElement>("button.ib-lift")!;
    expect([button.hidden, button.textContent, button.getAttribute("aria-label")]).toEqual([false, "Lift", "Lift"]);
    expect(button.title).toBe("Ask the service again now: asked for 365 d: asked again in 24 h");
    expect(words(el, ".ib-waiting")).toContain("the service asked us to wait 1 d 00 h");
    button.click();
    await frame();
    expect(model.sent.at(-1)).toMatchObject({ kind: "command", name: "lift" });
    model.receive(update(2, { head: head({ can: ["pause", "cancel"] }) }));
    await frame();
    expect(button.hidden).toBe(true);
    close();
  });

  it("moves the keyboard's focus from Pause to Resume", async () => {
    const { model, el, close } = mount();
    el.querySelector<HTMLButtonElement>("button.ib-pause")!.focus();
    model.receive(update(2, { head: head({ state: "paused", can: ["resume", "cancel"] }) }));
    await frame();
    expect(document.activeElement!.className).toBe("ib-resume");
    close();
  });

  it("tells assistive technology how far it is, and that it cannot know without a total", async () => {
    const { model, el, close } = mount();
    const bar = el.querySelector("[role=progressbar]")!;
    expect(bar.getAttribute("aria-valuenow")).toBe("6");
    expect(bar.getAttribute("aria-valuemax")).toBe("10");
    model.receive(update(2, { head: head({ counts: counts({ completed: 6, total: null }) }) }));
    await frame();
    expect(bar.hasAttribute("aria-valuenow")).toBe(false);
    expect(words(el, ".ib-line .ib-done")).toBe("6 done, more to come");
    close();
  });

  it("speaks of each tenth and of the first failure, every 5 s at most, and of a new state at once", async () => {
    const { model, el, close } = mount();
    let seq = 1;
    const at = async (completed: number, failed: number, total: number | null, elapsed_s: number): Promise<string> => {
      for (let second = 0; second < 6; second += 1) {
        model.receive(update((seq += 1), { head: head({ elapsed_s, eta_high_s: null, counts: counts({ completed, failed, total }) }) }));
        await vi.advanceTimersByTimeAsync(1000);
      }
      return words(el, "[aria-live]");
    };
    const said = [await at(750, 0, 1000, 65), await at(799, 0, 1000, 70), await at(798, 1, 1000, 71), await at(790, 9, 1000, 80)];
    said.push(await at(650, 0, null, 130), await at(720, 0, null, 140), await at(900, 0, null, 181));
    expect(said.map((words) => words.replace("running, ", ""))).toEqual([
      ...["750 of 1,000 done", "750 of 1,000 done", "799 of 1,000 done, 1 failed", "799 of 1,000 done, 1 failed"],
      ...["650 done", "650 done", "900 done"],
    ]);
    close();
  });

  it("keeps room for the digits to come, so that the number of failures stays in its place", async () => {
    const { model, el, close } = mount();
    const room = (): (string | null)[] => [".ib-done", ".ib-completed"].map((name) => el.querySelector(name)!.getAttribute("data-room"));
    model.receive(update(2, { head: head({ counts: counts({ completed: 95, failed: 5, total: 10_000 }) }) }));
    await frame();
    expect(room()).toEqual(["10,", "10,0"]);
    model.receive(update(3, { head: head({ counts: counts({ completed: 10_000, total: 10_000 }) }) }));
    await frame();
    expect(room()).toEqual([null, null]);
    close();
  });

  it("speaks of a new state at once", async () => {
    const { model, el, close } = mount();
    const spoken = words(el, "[aria-live]");
    model.receive(update(2, { head: head({ counts: counts({ completed: 7, total: 10 }) }) }));
    await frame();
    expect(words(el, "[aria-live]")).toBe(spoken);
    const over = head({ state: "completed", eta_high_s: null, counts: counts({ completed: 9, failed: 1, total: 10 }) });
    model.receive(update(3, { head: over }));
    await frame();
    expect(words(el, "[aria-live]")).toBe("completed, 10 of 10 done, 1 failed");
    close();
  });

  it("shows what was spent where work costs, else what the journal holds", async () => {
    const { model, el, close } = mount();
    expect(words(el, ".ib-journal")).toContain("6recordedkept for a resume");
    model.receive(update(2, { head: head({ spent_usd: 0.84, budget_usd: 5 }) }));
    await frame();
    expect(words(el, ".ib-spent")).toContain("$0.84of $5.00");
    model.receive(update(3, { head: head({ state: "rolled_back", recorded: 0 }) }));
    await frame();
    expect(words(el, ".ib-journal")).toContain("0recordedrolled back: nothing kept");
    close();
  });

  it("draws the breaker as word, pips and probe", async () => {
    const breaker = { state: "open" as const, failures: 3, threshold: 3, openings: 2, give_up_after: 5, probe_in_s: 41, limit_group: "" };
    const { el, close } = mount(update(1, { whole: true, head: head({ breaker }) }));
    expect(words(el, ".ib-breaker b")).toBe("open");
    expect(el.querySelectorAll(".ib-pips [data-on]").length).toBe(3);
    expect(words(el, ".ib-breaker .ib-foot")).toBe("probe in 41 s, opening 2 of 5");
    close();
  });

  it("lists the latest items first while it runs, and failures first when all is over", async () => {
    const failed = item("bad", { status: "failed", error: "HTTP 404" });
    const rows = { items: [item("a"), item("b")], failures: [failed] };
    const { model, el, close } = mount(update(1, { whole: true, ...rows }));
    const keys = (): string[] => [...el.querySelectorAll(".ib-of-items .ib-rows .ib-subject")].map((cell) => cell.textContent);
    expect(keys()).toEqual(["b", "a", "bad"]);
    model.receive(update(2, { head: head({ state: "completed", can: ["retry_failed"] }), ...rows }));
    await frame();
    expect(keys()).toEqual(["bad", "b", "a"]);
    close();
  });
});

describe("a kernel that is gone", () => {
  const state = (el: HTMLElement): string => words(el, ".ib-state");
  const isOffered = (el: HTMLElement, name: string): boolean => {
    const node = el.querySelector<HTMLElement>(`.ib-${name}`)!;
    return !node.hidden && !node.parentElement!.hidden;
  };

  it("by its silence: grey, with clocks that stand and nothing to press, until it is heard again", async () => {
    vi.setSystemTime(new Date(2026, 10, 30, 16, 20, 3));
    const { model, el, close } = mount();
    model.receive(update(2));
    await vi.advanceTimersByTimeAsync(4_000);
    expect(state(el)).toBe("running");
    await vi.advanceTimersByTimeAsync(3_000);
    expect(state(el)).toMatch(/^kernel gone, last heard 16:20:0\d$/);
    expect(el.querySelector(".ib-panel")!.hasAttribute("data-gone")).toBe(true);
    expect(isOffered(el, "cancel")).toBe(false);
    expect(el.querySelector<HTMLElement>(".ib-left")!.hidden).toBe(true);
    expect(isOffered(el, "reopen")).toBe(true);
    expect(words(el, ".ib-reopen")).toBe("BatchSession.open('wishlist')");
    const [shown, spoken] = [el.innerHTML, el.querySelector(".ib-progress .ib-spoken")!.textContent];
    await vi.advanceTimersByTimeAsync(60_000);
    expect(el.innerHTML).toBe(shown);
    expect(el.querySelector(".ib-progress .ib-spoken")!.textContent).toBe(spoken);
    model.receive(update(3));
    await frame();
    expect(state(el)).toBe("running");
    expect(el.querySelector(".ib-panel")!.hasAttribute("data-gone")).toBe(false);
    expect([isOffered(el, "cancel"), isOffered(el, "reopen")]).toEqual([true, false]);
    close();
  });

  it("but not while beats come, nor while the page is hidden", async () => {
    const { model, el, close } = mount();
    for (let second = 0; second < 20; second += 1) {
      model.receive({ kind: "beat", at_s: 0, pages: [], always: [] });
      await vi.advanceTimersByTimeAsync(1_000);
    }
    expect(state(el)).toBe("running");
    const isHidden = vi.spyOn(document, "hidden", "get").mockReturnValue(true);
    document.dispatchEvent(new Event("visibilitychange"));
    await vi.advanceTimersByTimeAsync(600_000);
    isHidden.mockReturnValue(false);
    document.dispatchEvent(new Event("visibilitychange"));
    await vi.advanceTimersByTimeAsync(3_000);
    expect(state(el)).toBe("running");
    close();
  });

  it.each(["restarting", "autorestarting", "dead"])("as its connection says: %s", async (status) => {
    const kernel = new SubshellKernel();
    const { el, close } = mount(undefined, kernel);
    await vi.advanceTimersByTimeAsync(1_500);
    kernel.turn(status);
    await frame();
    expect(state(el)).toMatch(/^kernel gone/);
    expect(words(el, ".ib-step")).toContain(status === "dead" ? "run its cell again" : "it was restarted");
    close();
    expect(kernel.watched).toBe(0);
  });

  it("and asks nothing of a kernel that took the place of its own", async () => {
    const kernel = new SubshellKernel();
    const { model, close } = mount(undefined, kernel);
    await vi.advanceTimersByTimeAsync(1_500);
    kernel.turn("autorestarting");
    const asked = [model.sent.length, kernel.code.length];
    await vi.advanceTimersByTimeAsync(120_000);
    expect([model.sent.length, kernel.code.length]).toEqual(asked);
    close();
  });

  it.each([
    ["running", /^kernel gone, last heard/, ""],
    ["completed", /^completed$/, /^kernel gone, last heard/],
  ] as const)("as the widget is marked, of a session that was %s", async (was, word, aside) => {
    const { el, model, close } = mount(update(1, { whole: true, head: head({ state: was, at_s: 1060 }) }));
    el.classList.add("jupyter-widgets-disconnected");
    for (const watch of model.watchers) watch();
    await frame();
    expect(state(el)).toMatch(word);
    expect(words(el, ".ib-waiting")).toMatch(aside);
    expect(isOffered(el, "reopen")).toBe(true);
    close();
  });

  it("is not asked for anything", async () => {
    const { model, el, close } = mount(update(1, { whole: true, groups: [group(1)] }));
    el.classList.add("jupyter-widgets-disconnected");
    await vi.advanceTimersByTimeAsync(2_000);
    el.querySelector<HTMLElement>(".ib-rows .ib-row")!.click();
    [...el.querySelectorAll<HTMLElement>("[role=tab]")].find((tab) => tab.textContent!.startsWith("Limits"))!.click();
    await frame();
    expect(model.kinds()).not.toContain("command");
    expect(el.querySelector<HTMLFieldSetElement>(".ib-settings fieldset")!.disabled).toBe(true);
    close();
  });
});
