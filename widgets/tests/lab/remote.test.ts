import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Remote } from "../../lab/src/remote";
import type { Update } from "../../src/schema";
import { counts, group, head, update } from "../samples";
import { batch, change, item, past } from "./samples";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "requestAnimationFrame", "cancelAnimationFrame"] }));
afterEach(() => document.body.replaceChildren());

async function open(first: Update, table: Parameters<typeof batch>[0] = {}) {
  const made = batch({ "GET /sessions/a/panel": { update: first, cursor: "c1" }, ...table });
  made.sessions.page({ items: [item("a")], next: null, unread: [] }, true, 1000);
  const place = { isSeen: vi.fn(() => true), now_s: made.now_s, renamed: vi.fn() };
  const feed = { refresh: vi.fn(() => Promise.resolve((made.sessions.health = "gone"))) };
  const remote = new Remote({ ...made, feed, settings: null } as never, "a", place);
  document.body.append(remote.node);
  remote.start();
  const wait = async (seconds = 0): Promise<void> => {
    made.pass(seconds);
    await vi.advanceTimersByTimeAsync(seconds * 1000 + 50);
  };
  await wait();
  const words = (selector: string): string => remote.node.querySelector(selector)?.textContent ?? "";
  const asked = (): string[] => made.asked.map(({ path }) => path);
  const button = (label: string): HTMLButtonElement => [...remote.node.querySelectorAll("button")].find((one) => one.textContent === label && !one.closest("[hidden]"))!;
  return { ...made, remote, place, wait, words, paths: asked, button };
}

const whole = (changes: Parameters<typeof head>[0] = {}, more: Partial<Update> = {}): Update => update(1, { whole: true, head: head(changes), ...more });

it("shows the whole panel, and asks for what is new since", async () => {
  const { words, place, table, wait, paths, remote } = await open(whole());
  expect(words(".ib-name")).toBe("wishlist");
  expect(place.renamed).toHaveBeenCalledWith("wishlist");
  table["GET /sessions/a/panel"] = { update: update(2, { head: head({ name: "renamed" }) }), cursor: "c2" };
  await wait(1);
  expect(words(".ib-name")).toBe("renamed");
  expect(paths().slice(0, 2)).toEqual(["/sessions/a/panel", "/sessions/a/panel?cursor=c1"]);
  remote.stop();
});

it("asks for everything again when it has missed something", async () => {
  const { table, wait, paths, remote } = await open(whole());
  table["GET /sessions/a/panel"] = { update: update(9), cursor: "c9" };
  await wait(1);
  await wait(1);
  expect(paths().at(-1)).toBe("/sessions/a/panel");
  remote.stop();
});

it("asks nothing while it is not seen, and at once when it is", async () => {
  const { place, wait, paths, remote } = await open(whole());
  place.isSeen.mockReturnValue(false);
  await wait(60);
  expect(paths()).toHaveLength(1);
  place.isSeen.mockReturnValue(true);
  remote.look();
  await wait();
  expect(paths()).toHaveLength(2);
  remote.stop();
});

it("asks about a session that has ended when an event tells of it", async () => {
  const { sessions, wait, paths, remote } = await open(whole({ state: "completed", can: [] }));
  await wait(5);
  expect(paths()).toHaveLength(1);
  sessions.change(change(1, [past("a")]), 1005);
  sessions.emit();
  await wait();
  expect(paths()).toHaveLength(2);
  remote.stop();
});

it("sends what is pressed, and says what came of it", async () => {
  const answer = { id: "1", verb: "cancel", state: "done", detail: "cancelled, 4 items left" };
  const { asked, wait, words, button, remote } = await open(whole(), { "POST /sessions/a/commands": answer });
  button("Cancel").click();
  await wait();
  expect(words("[role=status]")).toBe("cancelled, 4 items left");
  const sent = asked.find(({ init }) => init.method === "POST")!;
  expect([sent.path, JSON.parse(String(sent.init.body))]).toEqual(["/sessions/a/commands?wait=1", { verb: "cancel" }]);
  remote.stop();
});

it("reads the items of a group, page by page", async () => {
  const one = (key: unknown, error = ""): object => ({ key, status: error ? "failed" : "completed", group: 1, attempts: 1, seconds: 1, ended: "", error, scope: "", result: null, tries: [], traceback: error && "shop.py:7 in fetch: raise" });
  const { wait, paths, table, remote } = await open(whole({}, { groups: [group(1, { done: 150, items: 150 })] }), {
    "GET /sessions/a/items": { items: [...Array.from({ length: 99 }, (_, index) => one(`k${index}`)), one({ id: 2 }, "HTTP 404")], next: "n1" },
  });
  remote.node.querySelector<HTMLElement>(".ib-of-groups .ib-rows .ib-row")!.click();
  await wait(1);
  const entries = (): string[] => [...remote.node.querySelectorAll(".ib-entry")].map((entry) => entry.querySelector(".ib-subject")!.textContent!);
  expect(entries()).toHaveLength(100);
  expect(entries().at(-1)).toBe('{"id":2}');
  table["GET /sessions/a/items"] = { items: [one("last")], next: null };
  remote.node.querySelector<HTMLElement>(".ib-details .ib-more")!.click();
  await wait(1);
  expect(entries().slice(-2)).toEqual(['{"id":2}', "last"]);
  expect(paths().filter((path) => path.includes("items"))).toEqual(["/sessions/a/items?group=1&limit=100", "/sessions/a/items?group=1&limit=100&cursor=n1"]);
  remote.stop();
});

it("shows what failed of a group before the rest, and once", async () => {
  const one = (key: string, error = ""): object => ({ key, status: error ? "failed" : "completed", group: 1, attempts: 1, seconds: 1, ended: "", error, scope: "", result: null, tries: [], traceback: error && "shop.py:7 in fetch: raise" });
  const of = (path: string): Response => {
    const status = new URLSearchParams(path.split("?")[1]).get("status");
    return Response.json({ items: status === "failed" ? [one("b", "HTTP 404")] : status ? [] : [one("a"), one("b", "HTTP 404")], next: null });
  };
  const { ask, wait, remote } = await open(whole({}, { groups: [group(1, { done: 2, items: 2, failed: 1 })] }));
  const others = ask.getMockImplementation()!;
  ask.mockImplementation((path, init) => (path.includes("/items") ? Promise.resolve(of(path)) : others(path, init)));
  remote.node.querySelector<HTMLElement>(".ib-of-groups .ib-rows .ib-row")!.click();
  await wait(1);
  const entries = [...remote.node.querySelectorAll(".ib-entry")].map((entry) => entry.querySelector(".ib-subject")!.textContent);
  expect(entries).toEqual(["b", "a"]);
  remote.node.querySelector<HTMLElement>(".ib-entry")!.click();
  await wait(1);
  expect(remote.node.textContent).toContain("shop.py:7 in fetch");
  remote.stop();
});

it("lists what failed under a tab of its own, searched and paged on the server", async () => {
  const of = (path: string): object => {
    const search = new URLSearchParams(path.split("?")[1]).get("search") ?? "";
    const items = search ? [] : ["a", "b"].map((key) => ({ key, status: "failed", attempts: 1, seconds: 1, error: "HTTP 404", tries: [], traceback: "" }));
    const groups = search ? [] : [{ message: "HTTP 404", count: 2, status: "failed", scope: "item" }];
    return { kind: "errors", id: "", search, version: search ? 8 : 7, total: items.length, of: 2, groups, more_groups: 0, offset: 0, items };
  };
  const { button, wait, ask, remote } = await open(whole({ state: "completed", can: ["retry_failed"], counts: counts({ completed: 8, failed: 2, total: 10 }) }));
  const others = ask.getMockImplementation()!;
  ask.mockImplementation((path, init) => (path.includes("/failures") ? Promise.resolve(Response.json(of(path))) : others(path, init)));
  button("Errors").click();
  await wait(1);
  await wait(1);
  const rows = [...remote.node.querySelectorAll<HTMLElement>(".ib-of-errors .ib-rows .ib-row")].map((row) => row.querySelector(".ib-words")!.textContent);
  expect(rows).toEqual(["HTTP 404", "a", "b"]);
  expect(button("Retry all 2")).toBeDefined();
  const input = remote.node.querySelector<HTMLInputElement>(".ib-of-errors .ib-filter")!;
  input.value = "no/such?";
  input.dispatchEvent(new Event("input"));
  await wait(1);
  await wait(1);
  expect(remote.node.querySelector(".ib-of-errors .ib-aside")!.textContent).toBe("0 of 2");
  expect(ask.mock.calls.at(-1)![0]).toContain("/sessions/a/failures?offset=0&search=no%2Fsuch%3F&limit=100");
  remote.stop();
});

it("says what is wrong, and goes on showing what it knows", async () => {
  const { table, wait, words, remote } = await open(whole());
  table["GET /sessions/a/panel"] = () => Response.json({ message: "no session has that id" }, { status: 404 });
  await wait(1);
  expect([words(".ib-trouble"), words(".ib-name")]).toEqual(["This session is not there any more: it was deleted, with what it had recorded.", "wishlist"]);
  remote.stop();
});

it("asks no more for what was deleted, nor by itself while the server is gone", async () => {
  const { table, ask, wait, paths, sessions, remote } = await open(whole());
  ask.mockRejectedValueOnce(new TypeError("refused"));
  await wait(1);
  const before = paths().length;
  await wait(30);
  expect(paths()).toHaveLength(before);
  table["GET /sessions/a/panel"] = () => Response.json({ message: "no session has that id" }, { status: 404 });
  sessions.health = "ready";
  await wait(1);
  expect(paths()).toHaveLength(before + 1);
  await wait(60);
  expect(paths()).toHaveLength(before + 1);
  remote.stop();
});

it("says that the server is gone, with clocks that stand and nothing to press, until it answers again", async () => {
  const { ask, wait, words, sessions, button, remote } = await open(whole());
  ask.mockRejectedValueOnce(new TypeError("refused"));
  await wait(1);
  expect(words(".ib-state")).toMatch(/^server gone, last heard \d\d:\d\d:\d\d$/);
  expect([words(".ib-trouble"), button("Cancel")]).toEqual(["", undefined]);
  expect(remote.node.querySelector(".ib-reattach")!.matches("[hidden]")).toBe(true);
  const elapsed = words(".ib-elapsed");
  for (let second = 0; second < 5; second += 1) await wait(1);
  expect(words(".ib-elapsed")).toBe(elapsed);
  sessions.health = "ready";
  await wait(1);
  expect(words(".ib-state")).toBe("running");
  expect(button("Cancel")).toBeDefined();
  remote.stop();
});

it("asks again where a connection has died without a word", async () => {
  const { ask, wait, words, sessions, remote } = await open(whole());
  ask.mockReturnValueOnce(new Promise(() => undefined));
  for (let second = 0; second < 40; second += 1) await wait(1);
  expect(words(".ib-state")).toMatch(/^server gone, last heard/);
  sessions.health = "ready";
  await wait(1);
  expect(words(".ib-state")).toBe("running");
  remote.stop();
});

it("does not take what was deleted for a server that is gone", async () => {
  const { table, wait, words, paths, remote } = await open(whole());
  table["GET /sessions/a/panel"] = () => Response.json({ message: "no session has that id" }, { status: 404 });
  await wait(1);
  const before = paths().length;
  for (let second = 0; second < 10; second += 1) await wait(1);
  expect(words(".ib-state")).toBe("running");
  expect(paths()).toHaveLength(before);
  remote.stop();
});

it("asks once for one that was deleted before its tab was open", async () => {
  const { wait, paths, words, remote } = await open(whole(), { "GET /sessions/a/panel": () => Response.json({}, { status: 404 }) });
  await wait(5);
  expect(words(".ib-trouble")).toContain("deleted");
  expect(paths()).toHaveLength(1);
  remote.stop();
});

it("asks several questions at once, and each of them once", async () => {
  const groups = [{ message: "odd", status: "failed", scope: "item", count: 300 }];
  const first = { kind: "errors", id: "", search: "", version: 7, total: 300, of: 300, groups, more_groups: 0, offset: 0, items: [] };
  const answers: ((answer: Response) => void)[] = [];
  const slow = (): Promise<Response> => new Promise((settle) => answers.push(settle));
  const ended = whole({ state: "completed", can: [], counts: counts({ failed: 300, total: 300 }) });
  const { remote, wait, button, paths, now_s } = await open(ended, { "GET /sessions/a/failures": slow as never });
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now_s() * 1000);
  remote.node.querySelector<HTMLButtonElement>("button.ib-failed")!.click();
  await wait(1);
  answers[0]!(Response.json(first));
  await wait(1);
  await wait(1);
  const limits = (): string[] => paths().filter((path) => path.includes("failures")).map((path) => new URLSearchParams(path.split("?")[1]).get("limit")!);
  expect(limits()).toEqual(["100", "100"]); // the list, and the page in sight, which is under way
  button("CSV").click();
  await wait(1);
  expect(limits()).toEqual(["100", "100", "2000"]);
  remote.stop();
  clock.mockRestore();
});
