// The front-end module protocol of anywidget (https://anywidget.dev/en/afm/, read 2026-11-30), in a host that has no
// more than it asks for: no widget manager, no kernel connection, no marks of Jupyter's. So are those of other editors.
import type { RenderProps } from "@anywidget/types";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import panel from "../src/panel";
import { GONE } from "../src/commands";
import { counts, group, head, update } from "./samples";

type Handler = (message: unknown, buffers: DataView[]) => void;
type Props = RenderProps<{ initial: string; panel_id: string; view: string }>;

const ASKED = ["get", "set", "save_changes", "on", "off", "send"];
let made = 0;

/** A host that fails whoever asks it for anything else. */
function host(view = "panel", send?: () => void) {
  made += 1;
  const traits: Record<string, unknown> = { panel_id: `c${made}`, view, initial: JSON.stringify(update(1, { whole: true })) };
  const handlers = new Set<Handler>();
  const sent: { kind: string; id?: string; view?: string }[] = [];
  const has = {
    get: (name: string) => traits[name],
    set: () => undefined,
    save_changes: () => undefined,
    on: (name: string, handler: Handler) => void (name === "msg:custom" && handlers.add(handler)),
    off: (_: string, handler: Handler) => void handlers.delete(handler),
    send: (message: { kind: string }) => (send ? send() : void sent.push(structuredClone(message))),
  };
  const strange = new Set<string>();
  const model = new Proxy(has, {
    get(target, name: string) {
      if (!ASKED.includes(name) && name !== "widget_manager") strange.add(name);
      return target[name as keyof typeof has];
    },
  });
  const tell = (message: unknown): void => {
    const bytes = new TextEncoder().encode(JSON.stringify(message));
    for (const handler of [...handlers]) handler({}, [new DataView(bytes.buffer)]);
  };
  const open = (more: object = {}): { el: HTMLElement; close: () => void } => {
    const el = document.body.appendChild(document.createElement("div"));
    return { el, close: panel.render({ model, el, ...more } as unknown as Props) };
  };
  return { open, tell, sent, handlers, strange };
}

const frame = (): Promise<unknown> => vi.advanceTimersByTimeAsync(100);
const shown = (el: HTMLElement, selector: string): string => el.querySelector(selector)!.textContent;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

describe("in a host that has only get, set, save_changes, on, off and send", () => {
  it.each(["panel", "progress", "table", "breaker", "timeline", "log"])("%s is drawn, follows, and asks for no more", async (view) => {
    const { open, tell, strange, handlers } = host(view);
    const { el, close } = open();
    tell(update(2, { whole: true, head: head({ name: "renamed" }), groups: [group(1)] }));
    await frame();
    expect(el.querySelector("section")!.getAttribute("aria-label")).toBe("renamed");
    close();
    expect([...strange]).toEqual([]);
    expect(handlers.size).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("buttons send their command, and say what they do until the answer", async () => {
    const { open, tell, sent } = host();
    const { el, close } = open();
    tell(update(2, { whole: true, pages: [sent[0]!.view!] }));
    await frame();
    el.querySelector<HTMLButtonElement>(".ib-pause")!.click();
    await frame();
    const { id } = sent.find(({ kind }) => kind === "command")!;
    expect(shown(el, ".ib-said")).toContain("pausing");
    tell({ kind: "ack", id, ok: true, done: true, text: "paused" });
    tell(update(3, { head: head({ state: "paused", can: ["resume", "cancel"] }) }));
    await frame();
    expect(shown(el, ".ib-state")).toContain("paused");
    close();
  });

  it("a button whose command gets no answer says why", async () => {
    const { open, tell } = host();
    const { el, close } = open();
    tell(update(2, { whole: true }));
    await frame();
    el.querySelector<HTMLButtonElement>(".ib-cancel")!.click();
    await vi.advanceTimersByTimeAsync(1000);
    expect(shown(el, ".ib-said")).toContain("the kernel is busy");
    close();
  });

  it("a button that cannot send says what to do", async () => {
    const { open, tell } = host("panel", () => {
      throw new Error("no comm");
    });
    const { el, close } = open();
    tell(update(2, { whole: true }));
    await frame();
    el.querySelector<HTMLButtonElement>(".ib-cancel")!.click();
    await frame();
    expect(shown(el, ".ib-said")).toBe(GONE);
    close();
  });

  it("several views of one model show the same; one may close", async () => {
    const { open, tell } = host();
    const [first, second] = [open(), open()];
    tell(update(2, { whole: true, head: head({ counts: counts({ completed: 9, total: 10 }) }) }));
    await frame();
    expect([first, second].map(({ el }) => shown(el, ".ib-line .ib-done"))).toEqual(["9 of 10", "9 of 10"]);
    first.close();
    tell(update(3, { head: head({ counts: counts({ completed: 10, total: 10 }) }) }));
    await frame();
    expect(shown(second.el, ".ib-line .ib-done")).toBe("10 of 10");
    second.close();
  });

  it("a signal ends a view as its clean-up does, and both together do no harm", () => {
    const { open, handlers, sent } = host();
    const ends = new AbortController();
    const { el, close } = open({ signal: ends.signal });
    ends.abort();
    expect(el.childElementCount).toBe(0);
    expect(handlers.size).toBe(0);
    close();
    expect(sent.map(({ kind }) => kind)).toEqual(["hello", "bye"]);
  });

  it("is one default export, with render, and needs no experimental interface", () => {
    expect(Object.keys(panel)).toEqual(["render"]);
  });
});
