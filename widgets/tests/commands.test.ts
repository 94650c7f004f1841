import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BUSY, Commands, GONE, type Road } from "../src/commands";
import type { Command } from "../src/schema";
import type { Kernel } from "../src/subshell";
import { SubshellKernel } from "./samples";

class TestRoad implements Road {
  readonly sent: Command[] = [];
  readonly said: string[] = [];
  dead = false;

  constructor(private readonly at: SubshellKernel | null = null) {}

  panelId(): string {
    return "panel-1";
  }

  kernel(): Kernel | null {
    return this.at;
  }

  say(text: string): void {
    this.said.push(text);
  }

  send(command: Command): void {
    if (this.dead) throw new Error("the comm is closed");
    this.sent.push(command);
  }

  ack(commands: Commands, text = "cancelled", done = true): void {
    commands.answered({ kind: "ack", id: this.sent[0]!.id, ok: true, done, text });
  }
}

function open(kernel: SubshellKernel | null = null): [TestRoad, Commands] {
  const road = new TestRoad(kernel);
  return [road, new Commands(road)];
}

/** It loads nothing: a kernel that was restarted since has no panel, and is none of ours. */
const actOf = (id: string): string =>
  `getattr(__import__("sys").modules.get("ipybatch.jupyter.panel"), "act", lambda *_: None)("${id}")`;

const wait = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("a press", () => {
  it("says at once what it does, under an id that names panel and command", () => {
    const [road, commands] = open();
    commands.press("cancel");
    expect(road.said).toEqual(["cancelling\u2026"]);
    expect(road.sent[0]).toMatchObject({ kind: "command", name: "cancel" });
    expect(road.sent[0]!.id).toMatch(/^panel-1\/\d+\/cancel$/);
    expect(commands.isPending("cancel")).toBe(true);
  });

  it("answered in time needs no subshell", async () => {
    const kernel = new SubshellKernel();
    const [road, commands] = open(kernel);
    commands.press("pause");
    await wait(299);
    road.ack(commands, "paused");
    await wait(1000);
    expect(kernel.created).toBe(0);
    expect(road.said.at(-1)).toBe("paused");
    expect(commands.isPending("pause")).toBe(false);
    await wait(4000);
    expect(road.said.at(-1)).toBe("");
  });

  it("not answered goes once more, by the same id, through a subshell", async () => {
    const kernel = new SubshellKernel();
    const [road, commands] = open(kernel);
    commands.press("cancel");
    await wait(5000);
    const id = road.sent[0]!.id;
    expect(kernel.code).toEqual([actOf(id)]);
    expect(road.sent).toHaveLength(1);
    road.ack(commands);
    expect(commands.isPending("cancel")).toBe(false);
    expect(road.said.at(-1)).toBe("cancelled");
  });

  it("repeated while it waits keeps its id and opens no second road", async () => {
    const kernel = new SubshellKernel();
    const [road, commands] = open(kernel);
    commands.press("cancel");
    await wait(1000);
    commands.press("cancel");
    await wait(1000);
    expect(new Set(road.sent.map((command) => command.id)).size).toBe(1);
    expect(kernel.code).toHaveLength(1);
  });

  it("goes by the control channel where there are no subshells", async () => {
    const kernel = Object.assign(new SubshellKernel(), { supportsSubshells: false });
    const [road, commands] = open(kernel);
    commands.press("pause");
    await wait(300);
    const id = road.sent[0]!.id;
    const [message] = kernel.controlled;
    expect(kernel.created).toBe(0);
    expect(message).toMatchObject({ channel: "control", header: { msg_type: "execute_request", session: "page-1" } });
    expect(message!.content.code).toBe(actOf(id));
    expect(message!.content).toMatchObject({ silent: true, store_history: false, allow_stdin: true });
    road.ack(commands, "paused");
    await wait(3000);
    expect(kernel.controlled).toHaveLength(1);
    expect(road.said).not.toContain(BUSY);
  });

  it("is told to wait where the control channel is not read either", async () => {
    const kernel = Object.assign(new SubshellKernel(), { supportsSubshells: false, broken: true });
    const [road, commands] = open(kernel);
    commands.press("cancel");
    await wait(300 + 2000);
    expect(road.said.at(-1)).toBe(BUSY);
    road.ack(commands);
    expect(road.said.at(-1)).toBe("cancelled");
  });

  it("goes by a broadcast to Python in the browser, which reads no message while a cell runs", async () => {
    const told: [string, string][] = [];
    vi.stubGlobal("BroadcastChannel", class {
      constructor(private readonly name: string) {}
      postMessage(message: string): void {
        told.push([this.name, message]);
      }
      close(): void {}
    });
    const info = Promise.resolve({ implementation: "pyodide" });
    const kernel = Object.assign(new SubshellKernel(), { supportsSubshells: false, info });
    const [road, commands] = open(kernel);
    commands.press("cancel");
    await wait(300);
    expect(told).toEqual([["ipybatch", JSON.stringify(["act", road.sent[0]!.id])]]);
    expect(await commands.tell({ kind: "here", view: "page-1" })).toBe(true);
    expect(JSON.parse(told[1]![1])).toEqual(["hear", "panel-1", '{"kind":"here","view":"page-1"}']);
    vi.unstubAllGlobals();
  });

  it("is told to wait on a kernel of another kind without subshells", async () => {
    const info = Promise.resolve({ implementation: "xeus-python" });
    const kernel = Object.assign(new SubshellKernel(), { supportsSubshells: false, info });
    const [road, commands] = open(kernel);
    commands.press("cancel");
    await wait(300);
    expect(road.said.at(-1)).toBe(BUSY);
    expect(kernel.controlled).toEqual([]);
  });

  it("is told to wait when the subshell cannot be made", async () => {
    const kernel = Object.assign(new SubshellKernel(), { broken: true });
    const [road, commands] = open(kernel);
    commands.press("cancel");
    await wait(300);
    expect(road.said.at(-1)).toBe(BUSY);
  });

  it("without a kernel says so and does not wait", () => {
    const [road, commands] = open();
    road.dead = true;
    commands.press("cancel");
    expect(road.said.at(-1)).toBe(GONE);
    expect(commands.isPending("cancel")).toBe(false);
  });

  it("that the engine is too busy for waits for the second answer, and goes no other way meanwhile", async () => {
    const kernel = new SubshellKernel();
    const [road, commands] = open(kernel);
    commands.press("pause");
    road.ack(commands, "asked to pause: the engine is busy", false);
    await wait(60_000);
    expect(kernel.code).toEqual([]);
    expect(road.said).toEqual(["pausing\u2026", "asked to pause: the engine is busy"]);
    expect(commands.isPending("pause")).toBe(true);
    road.ack(commands, "paused, 4 in flight finish");
    expect(commands.isPending("pause")).toBe(false);
    expect(road.said.at(-1)).toBe("paused, 4 in flight finish");
    await wait(4000);
    expect(road.said.at(-1)).toBe("");
  });

  it("of another view is told of here for a while", async () => {
    const [road, commands] = open();
    const ack = { kind: "ack", id: "panel-1/1/pause", ok: true } as const;
    commands.answered({ ...ack, done: false, text: "asked to pause: the engine is busy" });
    await wait(4000);
    commands.answered({ ...ack, done: true, text: "paused" });
    await wait(4000);
    expect(road.said).toEqual(["asked to pause: the engine is busy", "", "paused", ""]);
  });

  it("is answered by an update that no longer offers it", () => {
    const [road, commands] = open();
    commands.press("cancel");
    commands.offered(["cancel"]);
    expect(commands.isPending("cancel")).toBe(true);
    commands.offered(["retry_failed"]);
    expect(commands.isPending("cancel")).toBe(false);
    expect(road.said.at(-1)).toBe("");
  });
});

describe("the subshell", () => {
  it("is made once for all views and deleted with the last", async () => {
    const kernel = new SubshellKernel();
    const [, one] = open(kernel);
    const [, two] = open(kernel);
    one.press("pause");
    await wait(300);
    two.press("cancel");
    await wait(300);
    expect(kernel.created).toBe(1);
    expect(kernel.code).toHaveLength(2);
    one.close();
    await wait(0);
    expect(kernel.disposed).toBe(0);
    two.close();
    await wait(0);
    expect(kernel.disposed).toBe(1);
  });

  it("is made at the press where the kernel is busy, and used only without an answer", async () => {
    const kernel = Object.assign(new SubshellKernel(), { status: "busy" });
    const [road, commands] = open(kernel);
    commands.press("pause");
    expect(kernel.created).toBe(1);
    road.ack(commands);
    await wait(1000);
    expect(kernel.code).toEqual([]);
    commands.close();
    await wait(0);
    expect(kernel.disposed).toBe(1);
  });

  it("closes after a word that wants no more of it, and stays open for a press", async () => {
    const kernel = new SubshellKernel();
    const [, commands] = open(kernel);
    expect(await Promise.all([commands.tell({ kind: "here", view: "1" }), commands.tell({ kind: "here", view: "2" })])).toEqual([true, true]);
    await wait(0);
    expect([kernel.created, kernel.disposed]).toEqual([1, 1]);
    commands.press("pause");
    await wait(300);
    await commands.tell({ kind: "here", view: "1" });
    await wait(0);
    expect([kernel.created, kernel.disposed]).toEqual([2, 1]);
    commands.close();
  });

  it("is made anew after a restart of the kernel", async () => {
    const kernel = new SubshellKernel();
    const [road, commands] = open(kernel);
    commands.press("pause");
    await wait(300);
    road.ack(commands);
    kernel.restart();
    commands.press("cancel");
    await wait(300);
    expect(kernel.created).toBe(2);
    commands.close();
  });

  it("does nothing for a view that was closed before its patience ended", async () => {
    const kernel = new SubshellKernel();
    const [, commands] = open(kernel);
    commands.press("pause");
    commands.close();
    await wait(1000);
    expect(kernel.created).toBe(0);
  });
});
