import { beforeEach, describe, expect, it, vi } from "vitest";
import { EVENTS, Feed } from "../../lab/src/feed";
import { batch, change, item, past, queued, root, schedule, template } from "./samples";

const ids = (entries: { item: { id: string } }[]): string[] => entries.map((entry) => entry.item.id);
const page = (items: object[], next: string | null = null) => ({ items, next, unread: [] });

describe("sessions", () => {
  it("are live or past, the latest first, by name and state", () => {
    const { sessions } = batch();
    const items = [item("a", { started: "1" }), item("b", { started: "2", name: "Wishlist" }), past("c", { started: "3" })];
    sessions.page({ items, next: null, unread: [] }, true, 0);
    expect(ids(sessions.shownLive)).toEqual(["b", "a"]);
    expect(ids(sessions.shownPast)).toEqual(["c"]);
    sessions.search({ name: "wish", state: "" });
    expect([ids(sessions.shownLive), ids(sessions.shownPast)]).toEqual([["b"], []]);
    sessions.search({ name: "", state: "completed" });
    expect([ids(sessions.shownLive), ids(sessions.shownPast)]).toEqual([[], ["c"]]);
    expect(ids(sessions.live)).toEqual(["b", "a"]);
  });

  it("show no past ones from behind a page that was not read", () => {
    const { sessions } = batch();
    sessions.page({ items: [past("new", { started: "5" })], next: "more", unread: [] }, true, 0);
    sessions.change(change(1, [past("old", { started: "1" })]), 0);
    expect(ids(sessions.shownPast)).toEqual(["new"]);
    sessions.page({ items: [past("old", { started: "1" })], next: null, unread: [] }, false, 0);
    expect(ids(sessions.shownPast)).toEqual(["new", "old"]);
  });

  it("keep what an event told while an older answer was on its way", () => {
    const { sessions } = batch();
    sessions.asking();
    sessions.change(change(1, [past("a")], ["gone"]), 1);
    sessions.page({ items: [item("a"), item("gone")], next: null, unread: [] }, true, 2);
    expect(sessions.get("a")!.state).toBe("completed");
    expect(sessions.get("gone")).toBeUndefined();
  });

  it("are gone when a first page does not have them", () => {
    const { sessions } = batch();
    sessions.page({ items: [item("a"), past("b")], next: null, unread: [] }, true, 0);
    sessions.asking();
    sessions.page({ items: [item("a")], next: null, unread: [] }, true, 0);
    expect([...sessions.known.keys()]).toEqual(["a"]);
  });

  it("tell once that one has ended", () => {
    const { sessions } = batch();
    const ended = vi.fn();
    sessions.onEnd(ended);
    sessions.page({ items: [item("a"), past("b")], next: null, unread: [] }, true, 0);
    sessions.change(change(1, [past("a")]), 1);
    sessions.change(change(2, [past("a"), past("b")]), 2);
    expect(ended.mock.calls.map(([item]) => item.id)).toEqual(["a"]);
  });
});

describe("the feed", () => {
  beforeEach(() => void vi.useFakeTimers());

  function feed() {
    const made = batch({ "GET /": root, "GET /sessions": page([item("a")]) });
    const around = { isVisible: vi.fn(() => true), poll_s: vi.fn(() => 10), now_s: made.now_s };
    const feed = new Feed(made.api, made.sessions, around);
    const emit = (cursor: number, ...items: Parameters<typeof change>[1]): void => feed.receive({ schema_id: EVENTS, ...change(cursor, items) } as object);
    const wait = async (seconds: number): Promise<void> => {
      for (let passed = 0; passed < seconds; passed += 1) {
        made.pass(1);
        await vi.advanceTimersByTimeAsync(1000);
      }
    };
    const lists = (): number => made.asked.filter(({ path }) => path.startsWith("/sessions?limit")).length;
    return { ...made, around, feed, emit, wait, lists };
  }

  it("folds events as they come, and asks nothing meanwhile", async () => {
    const { feed: one, emit, sessions, lists } = feed();
    await one.refresh();
    emit(7, past("a"));
    emit(8, item("b"));
    expect(ids(sessions.live)).toEqual(["b"]);
    expect(lists()).toBe(1);
    one.receive({ schema_id: "https://elsewhere" });
  });

  it("learns how one ended while nothing was told, even where the first page does not have it", async () => {
    const { feed: one, table, sessions } = feed();
    const ended = vi.fn();
    sessions.onEnd(ended);
    table["GET /sessions"] = page([item("a", { started: "2" }), item("b", { started: "1" })]);
    await one.refresh();
    Object.assign(table, { "GET /sessions": page([past("c", { started: "3" })]), "GET /sessions/a": past("a", { started: "2" }) });
    await one.refresh();
    expect(ids(sessions.live)).toEqual([]);
    expect(ended.mock.calls.map(([item]) => item.id)).toEqual(["a"]);
    expect([...sessions.known.keys()]).not.toContain("b");
  });

  it("asks for schedules and templates alone, where an event says that they changed", async () => {
    const { feed: one, wait, lists, sessions, table } = feed();
    await one.refresh();
    const shipped = template("text", { kind: "shipped" });
    Object.assign(table, { "GET /templates": { items: [shipped, template("night")] }, "GET /schedules": { items: [schedule("weekly")], next: null } });
    one.receive({ schema_id: EVENTS, ...change(1, []), templates: true } as never);
    await wait(1);
    expect([sessions.shownTemplates.map(({ item }) => item.template.name), sessions.schedules]).toEqual([["night"], []]);
    one.receive({ schema_id: EVENTS, ...change(2, []), schedules: true } as never);
    await wait(1);
    expect(sessions.schedules.map(({ name }) => name)).toEqual(["weekly"]);
    expect(lists()).toBe(1);
  });

  it("asks what waits alone, where an event says that others do", async () => {
    const { feed: one, wait, lists, sessions, table } = feed();
    await one.refresh();
    expect(sessions.queue).toEqual([]);
    table["GET /submissions"] = { items: [queued("s1")], next: null };
    one.receive({ schema_id: EVENTS, ...change(1, []), submissions: true } as never);
    await wait(1);
    expect(sessions.shownQueue.map(({ item }) => item.id)).toEqual(["s1"]);
    expect(lists()).toBe(1);
    table["GET /submissions"] = () => Response.json({}, { status: 503 });
    await one.refresh();
    expect([sessions.health, sessions.queue.length]).toEqual(["ready", 1]);
  });

  it("asks for everything after a gap", async () => {
    const { feed: one, emit, wait, lists } = feed();
    await one.refresh();
    emit(7, item("a"));
    emit(9, item("a"));
    await wait(1);
    expect(lists()).toBe(2);
  });

  it("looks after a silence, but not while it is hidden, nor when told never to", async () => {
    const { feed: one, wait, lists, around, emit } = feed();
    one.start();
    await wait(0);
    emit(1);
    await wait(9);
    expect(lists()).toBe(1);
    await wait(3);
    expect(lists()).toBe(2);
    around.isVisible.mockReturnValue(false);
    await wait(60);
    expect(lists()).toBe(2);
    around.isVisible.mockReturnValue(true);
    around.poll_s.mockReturnValue(0);
    await wait(60);
    expect(lists()).toBe(2);
    one.stop();
  });

  it("looks more often while something is live that no event tells of", async () => {
    const { feed: one, wait, lists, sessions } = feed();
    one.start();
    await wait(10);
    expect(lists()).toBe(4);
    sessions.change(change(0, [past("a")]), 0);
    await wait(8);
    expect(lists()).toBe(4);
    one.stop();
  });

  it("asks a server that is gone less and less often, and says so", async () => {
    const { feed: one, wait, sessions, ask } = feed();
    await one.refresh();
    ask.mockImplementation(() => Promise.reject(new TypeError("Failed to fetch")));
    ask.mockClear();
    await one.refresh();
    one.start();
    await wait(120);
    expect(sessions.health).toBe("gone");
    expect(ask.mock.calls.filter(([path]) => !/^.(schedules|templates)/.test(String(path))).length).toBeLessThan(14);
    expect(ids(sessions.live)).toEqual(["a"]);
    one.stop();
  });

  it("says that a server has no such extension", async () => {
    const { feed: one, sessions, table } = feed();
    table["GET /"] = () => new Response("<html>", { status: 404 });
    await one.refresh();
    expect(sessions.health).toBe("missing");
  });

  it("drops the page of a filter that was changed meanwhile", async () => {
    const { feed: one, sessions, asked } = feed();
    const asking = one.refresh();
    sessions.search({ name: "wish", state: "" });
    await asking;
    expect(asked.at(-1)!.path).toBe("/sessions?limit=50&name=wish");
    expect(sessions.isListed).toBe(true);
  });

  it("keeps the place of one who has loaded more", async () => {
    const { feed: one, sessions, table } = feed();
    const many = (from: number, length: number): object[] => Array.from({ length }, (_, index) => past(`p${from + index}`, { started: String(900 - from - index) }));
    table["GET /sessions"] = page(many(0, 50), "c1");
    await one.refresh();
    table["GET /sessions"] = page(many(50, 50), "c2");
    await one.more();
    expect(sessions.shownPast).toHaveLength(100);
    table["GET /sessions"] = page(many(0, 50), "c1");
    await one.refresh();
    expect(sessions.shownPast).toHaveLength(100);
    expect(sessions.next).toBe("c2");
  });
});
