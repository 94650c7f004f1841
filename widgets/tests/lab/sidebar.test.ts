import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { waitWords } from "../../lab/src/queued";
import { nextWords, ruleWords } from "../../lab/src/scheduled";
import { Sidebar } from "../../lab/src/sidebar";
import { isTold } from "../../lab/src/told";
import { counts } from "../samples";
import { stateWords } from "../../src/selection";
import { batch, change, item, past, queued, root, schedule, tagged, template } from "./samples";

const EVIL = "<img src=x onerror=alert(1)>";
const HOOKS = ["open", "press", "notebook", "download", "interrupt", "shutDown", "withdraw", "schedule", "unschedule", "openRun", "create", "discard", "refresh", "reload"] as const;

function open(items = [item("a")], more: { next?: string | null; unread?: string[]; table?: Parameters<typeof batch>[0] } = {}) {
  const made = batch(more.table);
  const hooks = Object.fromEntries(HOOKS.map((name) => [name, vi.fn()])) as unknown as Record<(typeof HOOKS)[number], ReturnType<typeof vi.fn>>;
  const listing = { search: vi.fn(), more: vi.fn(() => Promise.resolve()) };
  const sidebar = new Sidebar(made.sessions, made.verbs, listing, hooks as never, "0.1.0");
  document.body.append(sidebar.node);
  made.sessions.page({ items, next: more.next ?? null, unread: more.unread ?? [] }, true, 1000);
  Object.assign(made.sessions, { health: "ready", root });
  const render = (): void => sidebar.render(made.now_s());
  made.sessions.onChange(render);
  render();
  const all = (selector: string): HTMLElement[] => [...sidebar.node.querySelectorAll<HTMLElement>(selector)].filter((node) => !node.closest("[hidden]"));
  const words = (selector: string): string[] => all(selector).map((node) => node.textContent ?? "");
  const button = (label: string): HTMLButtonElement => all("button").find((node) => node.getAttribute("aria-label") === label || node.textContent === label) as HTMLButtonElement;
  return { ...made, hooks, listing, sidebar, node: sidebar.node, render, all, words, button };
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => document.body.replaceChildren());

describe("the side bar", () => {
  it("says how far each live session is", () => {
    const { words } = open([
      item("a", { counts: counts({ completed: 300, failed: 15, pending: 185, total: 500 }), eta_s: 71, usd: 0.84, seconds: 108 }),
    ]);
    expect(words(".ib-card .ib-percent")).toEqual(["63 %"]);
    expect(words(".ib-card .ib-line")[1]).toBe("315 of 50015 failed1 m 10 s left");
    expect(words(".ib-card .ib-facts-of")).toEqual(["1 m 48 s \u00b7 $0.84"]);
  });

  it("goes on by its own clock between events, and not while paused", () => {
    const { words, pass, render } = open([
      item("a", { eta_s: 71 }),
      item("b", { state: "paused", started: "2026-11-30T09:00:00Z", can: ["resume"] }),
    ]);
    pass(11);
    render();
    expect(words(".ib-card .ib-facts-of")).toEqual(["1 m 11 s", "1 m 00 s"]);
    expect(words(".ib-card .ib-left")).toEqual(["1 m left", "paused"]);
  });

  it("says why nothing starts, counted down, and where the breaker stands", () => {
    const { words, all, pass, render } = open([item("a", { waiting: "breaker open: probe in 41 s", breaker: "open" })]);
    pass(10);
    render();
    expect(words(".ib-facts-of")).toEqual(["breaker open: probe in 31 s"]);
    expect(all(".ib-light")[0]!.getAttribute("aria-label")).toBe("Breaker open");
  });

  it("lists what is past with its result and how long it took", () => {
    const { words } = open([
      past("a", { seconds: 724, started: "2025-11-30T10:00:00Z" }),
      past("b", { state: "cancelled", counts: counts({ completed: 2, cancelled: 8, total: 10 }), started: "2025-11-29T10:00:00Z" }),
    ]);
    expect(words(".ib-past .ib-of")).toEqual(["10 of 10", "cancelled, 2 of 10"]);
    expect(words(".ib-past .ib-bad")).toEqual(["1 failed", ""]);
    expect(words(".ib-past .ib-took")).toEqual(["12 m 04 s", "1 m 00 s"]);
    expect(words(".ib-past .ib-when")).toEqual(["30 Nov 2025", "29 Nov 2025"]);
  });

  it("lists what waits: what it is, what it waits for, the next one first, and Cancel", () => {
    const { sessions, words, render, button, hooks } = open([item("a", { submission: "s0" })]);
    sessions.queue = [
      queued("s3", { start_at: "2126-11-30T10:00:00Z", waits_for: 0 }),
      queued("s2", { waits_for: 2 }),
      queued("s1", { template: "forecast", request_count: 1 }),
      queued("s0", { waits_for: 0 }),
    ];
    render();
    expect(words(".ib-section")).toEqual(["Live 1", "Queued 3"]);
    expect(words(".ib-in-queue .ib-subject")).toEqual(["batch s1", "batch s2", "batch s3"]);
    expect(words(".ib-in-queue .ib-left")).toEqual(["waits for 1 other", "waits for 2 others", "begins on 30 Nov 2126"]);
    expect(words(".ib-in-queue .ib-of")[0]).toBe("Forecast, 1");
    button("Cancel batch s2").click();
    expect(hooks.withdraw).toHaveBeenCalledWith(sessions.queue.find(({ id }) => id === "s2"));
    sessions.filter = { name: "", state: "failed" };
    render();
    expect(words(".ib-in-queue")).toEqual([]);
  });

  it("says when what waits begins", () => {
    const now = new Date("2026-11-30T10:00:00");
    const at = new Date("2026-11-30T14:03:00").toISOString();
    expect(waitWords(queued("a", { start_at: at }), now)).toBe("begins at 14:03");
    expect(waitWords(queued("a", { start_at: "2020-01-01T00:00:00Z", waits_for: 0 }), now)).toBe("begins in a moment");
  });

  it("lists schedules: what, when next, how the last one ended, and what is asked", () => {
    const { sessions, words, button, hooks, render } = open([]);
    const last = { at: "2025-11-29T22:00:00", submission: "s7", name: "night 2025-11-29 22:00", state: "FAILED" as const, failed: 0 };
    sessions.schedules = [
      schedule("old", { state: "ended", next: [], last: { ...last, state: "COMPLETED", failed: 3 } }),
      schedule("night", { last, zone: "Asia/Tokyo" }),
      schedule("asks", { state: "asking", question: "2 times passed: run one now?", next: ["2125-01-01T22:00:00"], cron: "0 22 * * 1", every: null, at: null }),
      schedule("held", { state: "paused", paused: true, next: ["2127-01-01T22:00:00"] }),
    ];
    render();
    expect(words("h3.ib-section")).toContain("Scheduled 4");
    expect(words(".ib-in-queue .ib-subject")).toEqual(["asks", "night", "held", "old"]);
    expect(words(".ib-in-queue .ib-of").slice(0, 4)).toEqual(["by 0 22 * * 1", "Library refresh", "daily 22:00 Asia/Tokyo", "Library refresh"]);
    expect(words(".ib-in-queue .ib-left")).toEqual(["waits for an answer", "next 1 Dec 2126 22:00", "paused", "ended"]);
    expect(words(".ib-linked")).toEqual(["last failed, 29 Nov 2025 22:00", "last completed, 3 failed, 29 Nov 2025 22:00"]);
    button("last failed, 29 Nov 2025 22:00").click();
    expect(hooks.openRun).toHaveBeenCalledWith(sessions.schedules.find(({ name }) => name === "night"));
    expect(words(".ib-question")).toEqual(["2 times passed: run one now?"]);
    button("Skip it").click();
    expect(hooks.schedule).toHaveBeenCalledWith("asks", "answer", "skip");
    button("Resume held").click();
    expect(hooks.schedule).toHaveBeenCalledWith("held", "resume");
    button("Run night now").click();
    expect(hooks.schedule).toHaveBeenCalledWith("night", "run_now");
    button("Delete night").click();
    expect(hooks.unschedule).toHaveBeenCalledWith(sessions.schedules.find(({ name }) => name === "night"));
    sessions.search({ name: "", state: "running" });
    render();
    expect(words(".ib-in-queue")).toEqual([]);
  });

  it("says when a schedule comes next", () => {
    const now = new Date(2026, 10, 30, 12);
    const at = (day: number): string => new Date(2026, 10, day, 22).toISOString();
    expect([30, 31, 32].map((day) => nextWords({ state: "waiting", next: [at(day)] }, now))).toEqual(["next 22:00", "next tomorrow 22:00", "next 2 Dec 22:00"]);
    const own = new Intl.DateTimeFormat().resolvedOptions().timeZone;
    const names = own === "UTC" ? ["UTC", "Etc/UTC"] : [own];
    expect(names.map((zone) => ruleWords({ every: "1w", at: "22:00", cron: null, zone }))).toEqual(names.map(() => "weekly 22:00"));
    expect(ruleWords({ every: null, at: null, cron: "0 6 * * 1", zone: "Mars/Base" })).toBe("by 0 6 * * 1 Mars/Base");
    expect(ruleWords({ every: "6h", at: null, cron: null, zone: "Asia/Tokyo" })).toBe("every 6h");
  });

  it("does once what is pressed twice of a schedule", async () => {
    const { sessions, verbs, asked } = open([], { table: { "POST /schedules/night/commands": schedule("night") } });
    sessions.schedules = [schedule("night")];
    await Promise.all([verbs.schedule("night", { verb: "run_now" }), verbs.schedule("night", { verb: "run_now" })]);
    expect(asked.filter(({ init }) => init.method === "POST")).toHaveLength(1);
    await verbs.schedule("night", { verb: "run_now" });
    expect(asked.filter(({ init }) => init.method === "POST")).toHaveLength(2);
  });

  it("pauses and deletes a schedule, and says why it cannot", async () => {
    const { sessions, verbs, table, asked } = open([], { table: { "POST /schedules/a%20b/commands": schedule("a b", { state: "paused", paused: true }) } });
    sessions.schedules = [schedule("a b")];
    await verbs.schedule("a b", { verb: "pause" });
    expect(sessions.schedules[0]!.state).toBe("paused");
    await verbs.unschedule("a b");
    expect(verbs.saidOf("schedule a b")).toBe("there is no such session");
    table["DELETE /schedules/a%20b"] = () => new Response(null, { status: 204 });
    await verbs.unschedule("a b");
    expect(sessions.schedules).toEqual([]);
    expect((asked.at(-1)!.init.headers as Record<string, string>)["If-Match"]).toBe("*");
  });

  it("opens the latest run of a schedule, whether its session is listed or not, and says where there is none", async () => {
    const last = { at: "2025-11-29T22:00:00", submission: "s7", name: "night 2025-11-29 22:00", state: "PENDING" as const, failed: 0 };
    const night = schedule("night", { last });
    const { sessions, verbs, asked, table } = open([past("a", { submission: "s1", name: "listed" })]);
    sessions.schedules = [night];
    expect(await verbs.runOf({ ...night, last: { ...last, submission: "s1" } })).toMatchObject({ id: "a", name: "listed" });
    expect(asked).toEqual([]);
    table["GET /submissions/s7"] = { ...queued("s7"), state: "COMPLETED", session: "a-9" };
    expect(await verbs.runOf(night)).toEqual({ id: "a-9", name: "night 2025-11-29 22:00" });
    table["GET /submissions/s7"] = queued("s7");
    expect([await verbs.runOf(night), verbs.saidOf("schedule night")]).toEqual([null, "it has not begun yet"]);
    delete table["GET /submissions/s7"];
    expect([await verbs.runOf(night), verbs.saidOf("schedule night")]).toEqual([null, "there is no such session"]);
  });

  it("is old at midnight, and where something is live", () => {
    vi.useFakeTimers({ toFake: ["Date"], now: new Date(2026, 10, 30, 23, 59, 59) });
    const { node, sessions, sidebar, render, words } = open([]);
    sessions.schedules = [schedule("night", { next: [new Date(2026, 11, 1, 22).toISOString()] })];
    render();
    expect([sidebar.isOld(), words(".ib-in-queue .ib-left")]).toEqual([false, ["next tomorrow 22:00"]]);
    vi.setSystemTime(new Date(2026, 11, 1));
    expect(sidebar.isOld()).toBe(true);
    render();
    expect([sidebar.isOld(), words(".ib-in-queue .ib-left")]).toEqual([false, ["next 22:00"]]);
    sessions.change(change(1, [item("a")]), 1001);
    expect(sidebar.isOld()).toBe(true);
    node.remove();
  });

  it("lists the user's own templates, with what keeps one from being submitted", () => {
    const { sessions, words, button, hooks, render, all } = open([]);
    sessions.templates = [template("night", { description: "the old ones" }), template("worn", { based_on: "", can: ["edit"], error: "worn.toml must be TOML" })];
    render();
    expect(words("h3.ib-section")).toEqual(["Templates 2"]);
    expect(words(".ib-in-queue .ib-of")).toEqual(["Library refresh: the old ones", "worn.toml must be TOML"]);
    button("New batch by night").click();
    expect(hooks.create).toHaveBeenCalledWith("night");
    expect(button("worn: worn.toml must be TOML").disabled).toBe(true);
    // The arrows and Tab reach what can be pressed.
    expect(all("li button:not(:disabled)").filter((node) => node.tabIndex === 0)).toEqual([button("New batch by night")]);
    button("Delete worn").click();
    expect(hooks.discard).toHaveBeenCalledWith("worn");
    sessions.search({ name: "", state: "running" });
    render();
    expect(words(".ib-in-queue")).toEqual([]);
  });

  it("deletes a template as it was read, once its user says so, and one that cannot be read as it is", async () => {
    const gone = () => new Response(null, { status: 204 });
    const broken = () => Response.json({ message: "broken" }, { status: 422 });
    const { sessions, verbs, asked, table } = open([], { table: { "GET /templates/night": tagged({}, "v1"), "GET /templates/worn": broken, "DELETE /templates/worn": gone } });
    const headers = () => asked.filter(({ init }) => init.method === "DELETE").map(({ init }) => (init.headers as Record<string, string>)["If-Match"]);
    sessions.templates = [template("night"), template("worn")];
    await verbs.discard("night", () => Promise.resolve(false));
    expect(headers()).toEqual([]);
    await verbs.discard("night", () => Promise.resolve(true));
    expect([headers(), verbs.saidOf("template night")]).toEqual([["v1"], "there is no such session"]);
    table["DELETE /templates/night"] = gone;
    for (const name of ["night", "worn"]) await verbs.discard(name, () => Promise.resolve(true));
    expect([headers(), sessions.templates]).toEqual([["v1", "v1", "*"], []]);
  });

  it("tells what waits for its start as what waits", () => {
    const { words, all } = open([item("a", { can: ["start_now", "cancel"], waiting: "it starts at 22:00 (Europe/Berlin)" })]);
    expect([item("b", { outside_hours: true }), item("c", { outside_hours: true, state: "paused" }), item("d")].map(stateWords)).toEqual(["waiting", "paused", "running"]);
    expect([all(".ib-card")[0]!.getAttribute("data-is"), all("button.ib-open")[0]!.getAttribute("aria-label")]).toEqual(["planned", "session a, waiting, open"]);
    expect(words(".ib-facts-of")).toEqual(["it starts at 22:00 (Europe/Berlin)"]);
  });

  it("takes a cancelled one out of the queue, and says why one cannot be cancelled", async () => {
    const { sessions, verbs, words, render } = open([], { table: { "DELETE /submissions/s1": {} } });
    sessions.queue = [queued("s1"), queued("s2")];
    render();
    await verbs.withdraw("s1");
    expect(words(".ib-in-queue .ib-subject")).toEqual(["batch s2"]);
    await verbs.withdraw("s2");
    expect(words(".ib-in-queue .ib-of")).toEqual(["there is no such session"]);
  });

  it("keeps the nodes of a session, wherever it stands", () => {
    const { sessions, all, render } = open([item("a", { started: "1" })]);
    const [node] = all(".ib-card");
    sessions.change(change(1, [item("b", { started: "2" }), item("a", { started: "1", counts: counts({ completed: 9, total: 10 }) })]), 1001);
    render();
    expect(all(".ib-card")[1]).toBe(node);
    expect(node!.textContent).toContain("90 %");
  });

  it("shows text as text, whatever it contains", () => {
    const { node } = open([item("a", { name: EVIL, waiting: EVIL, where: EVIL }), past("b", { name: EVIL, reason: EVIL })], { unread: [EVIL] });
    expect(node.querySelector("img")).toBeNull();
    expect(node.textContent).toContain(EVIL);
  });

  it("offers what makes sense, and nothing else", () => {
    const { all, button, hooks } = open([item("a", { name: "n", can: ["resume", "cancel"], notebook: "dir/my.ipynb" })]);
    expect(all(".ib-card .ib-tools button").map((node) => node.title)).toEqual([
      "Resume n",
      "Cancel n",
      "Open my.ipynb",
      "Download the results of n",
    ]);
    button("Cancel n").click();
    expect(hooks.press).toHaveBeenCalledWith(expect.objectContaining({ id: "a" }), "cancel");
  });

  it("loads more when asked", () => {
    const { button, listing } = open([past("a")], { next: "c" });
    button("Load more").click();
    expect(listing.more).toHaveBeenCalledOnce();
  });

  it("filters by name once typing pauses, and by state at once", () => {
    const { node, listing } = open();
    const input = node.querySelector("input")!;
    input.value = "Wish";
    input.dispatchEvent(new Event("input"));
    expect(listing.search).not.toHaveBeenCalled();
    vi.advanceTimersByTime(300);
    expect(listing.search).toHaveBeenLastCalledWith("wish", "");
    node.querySelector("select")!.value = "failed";
    node.querySelector("select")!.dispatchEvent(new Event("change"));
    expect(listing.search).toHaveBeenLastCalledWith("wish", "failed");
  });

  it("teaches how it begins where there is nothing", () => {
    const { words, button, hooks, all } = open([]);
    expect(words(".ib-first b")).toEqual(["No sessions yet."]);
    expect(all("input")).toEqual([]);
    button("New batch\u2026").click();
    expect(hooks.create).toHaveBeenCalledOnce();
  });

  it("has a skeleton until it knows, and no word of emptiness", () => {
    const { sessions, all, render } = open([]);
    Object.assign(sessions, { isListed: false, health: "loading" });
    render();
    expect(all(".ib-skeleton")).toHaveLength(1);
    expect(all(".ib-first")).toEqual([]);
  });

  it("says to reload when the server has another version", () => {
    const { sessions, render, words, button, hooks } = open();
    sessions.root = { ...root, version: "0.2.0" };
    render();
    expect(words(".ib-banner p")).toEqual(["The server has ipybatch 0.2.0, this page 0.1.0."]);
    button("Reload the page").click();
    expect(hooks.reload).toHaveBeenCalledOnce();
  });

  it("goes on showing what it knows when the server is gone", () => {
    const { sessions, render, words, all } = open();
    sessions.health = "gone";
    render();
    expect(words(".ib-banner p")).toEqual(["The server does not answer; what is shown may be old."]);
    expect(all(".ib-card")).toHaveLength(1);
  });
});

describe("a command", () => {
  const press = { "POST /sessions/a/commands": { id: "1", verb: "cancel", state: "done", detail: "cancelled, 4 items left" } };

  it("is said while it is asked, and what came of it for a few seconds", async () => {
    const { verbs, words, button, asked } = open([item("a", { name: "n" })], { table: press });
    const answer = verbs.press("a", "cancel");
    expect(words(".ib-facts-of")).toEqual(["cancelling\u2026"]);
    expect(button("Cancel n").getAttribute("aria-busy")).toBe("true");
    void verbs.press("a", "cancel");
    await answer;
    expect(words(".ib-facts-of")).toEqual(["cancelled, 4 items left"]);
    expect(asked.map(({ path }) => path)).toEqual(["/sessions/a/commands?wait=1", "/sessions/a"]);
    expect(JSON.parse(String(asked[0]!.init.body))).toEqual({ verb: "cancel" });
    vi.advanceTimersByTime(6000);
    expect(words(".ib-facts-of")).toEqual(["1 m 00 s"]);
  });

  it("is seen at once where no event tells of it", async () => {
    const { verbs, all, words } = open([item("a")], { table: { ...press, "GET /sessions/a": past("a", { state: "cancelled" }) } });
    await verbs.press("a", "cancel");
    expect(all(".ib-card")).toEqual([]);
    expect(words(".ib-past .ib-of")).toEqual(["cancelled, 4 items left"]);
  });

  it("leaves a wait of a moment unsaid", () => {
    const { words } = open([item("a", { waiting: "the limits allow the next start in 2 s" }), item("b", { waiting: "next batch in 12 s" })]);
    expect(words(".ib-facts-of")).toEqual(["next batch in 12 s", "1 m 00 s"]);
  });

  it("that is not taken offers the kernel's end by name", async () => {
    const waiting = { id: "1", verb: "cancel", state: "waiting", detail: "not taken yet", kernel: "k7" };
    const { verbs, sessions, words, button, hooks, all, render } = open([item("a", { notebook: "a.ipynb" })], {
      table: { "POST /sessions/a/commands": waiting },
    });
    await verbs.press("a", "cancel");
    expect(words(".ib-stuck p")).toEqual(["The kernel of a.ipynb does not answer; \u201ccancel\u201d waits for it."]);
    button("Interrupt kernel").click();
    button("Shut down kernel").click();
    expect([hooks.interrupt.mock.calls, hooks.shutDown.mock.calls]).toEqual([[["k7"]], [["k7"]]]);
    sessions.change(change(1, [past("a")]), 1001);
    render();
    expect(all(".ib-stuck")).toEqual([]);
  });

  it("that is taken late is not told as waiting once the server says so", async () => {
    const waiting = { id: "1", verb: "adjust", state: "waiting", detail: "not taken yet", kernel: "k7" };
    const one = item("a", { kernel: "k7", can: ["adjust", "cancel"], untaken: ["adjust"] });
    const { verbs, sessions, words, all, render } = open([one], { table: { "POST /sessions/a/commands": waiting, "GET /sessions/a": one } });
    await verbs.press("a", "adjust");
    expect(words(".ib-stuck p")).toEqual(["The kernel does not answer; \u201cadjust\u201d waits for it."]);
    expect(words(".ib-facts-of")).toEqual(["1 m 00 s"]);
    sessions.change(change(1, [{ ...one, untaken: [] }]), 1001);
    render();
    expect(all(".ib-stuck")).toEqual([]);
  });

  it("that is refused says why", async () => {
    const { verbs, words } = open([item("a")]);
    await verbs.press("a", "pause");
    expect(words(".ib-facts-of")).toEqual(["there is no such session"]);
  });

  it("of one's own is known for a minute: its end need not be told", async () => {
    const { verbs, pass } = open([item("a")], { table: press });
    await verbs.press("a", "cancel");
    expect(verbs.wasCancelledHere("a")).toBe(true);
    pass(61);
    expect(verbs.wasCancelledHere("a")).toBe(false);
  });
});

describe("the keyboard", () => {
  const key = (name: string): void => void document.activeElement!.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const focused = (): string | null => document.activeElement!.getAttribute("aria-label");

  it("reaches one button of all with Tab, the others with the arrows", () => {
    const { all, render } = open([item("a", { name: "n" }), past("b", { name: "m" })]);
    render();
    const stops = all("li button").filter((node) => node.tabIndex === 0);
    expect(stops.map((node) => node.getAttribute("aria-label"))).toEqual(["n, running, open"]);
    stops[0]!.focus();
    key("ArrowRight");
    expect(focused()).toBe("Pause n");
    key("ArrowDown");
    expect(focused()).toBe("m, completed with failures, open");
    expect(all("li button").filter((node) => node.tabIndex === 0)).toHaveLength(1);
    key("Home");
    expect(focused()).toBe("n, running, open");
  });

  it("goes from Pause to Resume when one takes the place of the other", async () => {
    const { button, sessions, render } = open([item("a", { name: "n" })]);
    button("Pause n").focus();
    sessions.change(change(1, [item("a", { name: "n", state: "paused", can: ["resume", "cancel"] })]), 1001);
    render();
    await Promise.resolve();
    expect(focused()).toBe("Resume n");
  });
});

describe("an ending", () => {
  const settings = { pollSeconds: 10, notify: "all" as const, notifyAfterSeconds: 10 };

  it("is told, unless it was quick, or its user's own doing", () => {
    expect(isTold(past("a"), settings, false)).toBe(true);
    expect(isTold(past("a", { seconds: 9 }), settings, false)).toBe(false);
    const cancelled = past("a", { state: "cancelled" });
    expect([isTold(cancelled, settings, true), isTold(cancelled, settings, false)]).toEqual([false, true]);
  });

  it("that is well is not told to one who asked for failures", () => {
    const failures = { ...settings, notify: "failures" as const };
    const well = past("a", { counts: counts({ completed: 10, total: 10 }) });
    expect([isTold(well, failures, false), isTold(past("a"), failures, false)]).toEqual([false, true]);
    expect(isTold(past("a", { state: "failed" }), { ...settings, notify: "none" }, false)).toBe(false);
  });

  it("is spoken", () => {
    const { sessions, words } = open([item("a", { name: "n" })]);
    sessions.change(change(1, [past("a", { name: "n" })]), 1001);
    expect(words("[role=status]")).toEqual(["n completed: 10 of 10, 1 failed, 1 m 00 s"]);
  });
});
