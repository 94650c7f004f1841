import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { EMPTY, isAskable, requestOf } from "../../lab/src/draft";
import { NewBatch } from "../../lab/src/newbatch";
import { factsOf } from "../../lab/src/quoted";
import type { Quote } from "../../src/wire";
import { counts } from "../samples";
import { root, server } from "./samples";

const quote: Quote = { template: "text", request_count: 2, seconds: [2, 3], usd: 0.42, credits: null, quote: [{ lane: "batch", usd: 0.42, low_s: 2.5, high_s: 86_400, seconds: 60 }], notes: ["batch is recommended"] };
const submission = {
  id: "s1",
  name: "foxes",
  template: "text",
  state: "PENDING",
  reason: "",
  counts: counts({ pending: 2, total: 2 }),
  request_count: 2,
  eta_s: null,
  starts: 0,
  credits: null,
  results: [] as string[],
  session: null,
};

describe("a request", () => {
  it("is a prompt a line, and an object where a line is one", () => {
    const draft = { ...EMPTY, template: "text", name: " foxes ", lines: 'A fox\n\n{"id": 7, "prompt": "A whale"}', model: "m", more: '{"temperature": 0.4}' };
    expect(requestOf(draft)).toEqual({
      template: "text",
      name: "foxes",
      priority: "medium",
      requests: ["A fox", { id: 7, prompt: "A whale" }],
      params: { lane: "batch", model: "m", temperature: 0.4 },
    });
  });

  it("has the picture with each of its prompts", () => {
    expect(requestOf({ ...EMPTY, template: "character", lines: "a", image: "QUJD" }).requests).toEqual([{ prompt: "a", imageBase64: "QUJD" }]);
  });

  it("of a library has ids, or none for all", () => {
    expect(requestOf({ ...EMPTY, template: "refresh", lines: "440\n570" }).requests).toEqual([440, 570]);
    expect(requestOf({ ...EMPTY, template: "refresh" })).toEqual({ template: "refresh", priority: "medium", params: {} });
  });

  it("of a table has the upload", () => {
    const draft = { ...EMPTY, template: "forecast", upload: "u1" };
    expect(requestOf(draft)).toMatchObject({ upload: "u1", params: { horizon: 30, by: "site" } });
    expect([isAskable(draft), isAskable({ ...draft, upload: "" })]).toEqual([true, false]);
  });

  it("with parameters that are no object is refused", () => {
    expect(() => requestOf({ ...EMPTY, template: "text", lines: "a", more: "[1]" })).toThrow("Parameters must be a JSON object");
  });
});

describe("the form", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => document.body.replaceChildren());

  function open(table: Parameters<typeof server>[0] = {}) {
    const made = server({ "POST /submissions": quote, ...table });
    const finish = { open: vi.fn(), download: vi.fn() };
    const form = new NewBatch(made.api, finish);
    document.body.append(form.node);
    form.offer(root);
    made.asked.length = 0; // what is offered: templates and channels
    const find = <T extends HTMLElement>(selector: string): T => form.node.querySelector<T>(selector)!;
    const type = async (text: string): Promise<void> => {
      find<HTMLTextAreaElement>("textarea").value = text;
      find("form").dispatchEvent(new Event("input"));
      await vi.advanceTimersByTimeAsync(500);
    };
    const choose = async (name: string): Promise<void> => {
      const select = find<HTMLSelectElement>("select");
      select.value = name;
      select.dispatchEvent(new Event("change", { bubbles: true }));
      await vi.advanceTimersByTimeAsync(500);
    };
    const submit = async (): Promise<void> => {
      find("form").dispatchEvent(new Event("submit", { cancelable: true }));
      await vi.advanceTimersByTimeAsync(0);
    };
    return { ...made, form, finish, find, type, choose, submit, button: () => find<HTMLButtonElement>("button.ib-apply") };
  }

  it("tells what it would take before it can be sent", async () => {
    const { type, button, find, asked } = open();
    expect(button().disabled).toBe(true);
    await type("A fox\nA whale");
    expect(asked.map(({ path }) => path)).toEqual(["/submissions?dry_run=1"]);
    expect(find(".ib-quoted .ib-facts-of").textContent).toBe("2 requests, about 2 to 3 s, $0.42");
    expect(find(".ib-quoted tbody").textContent).toBe("batch$0.422.5 s1 d 00 h1 m 00 s");
    expect(find(".ib-quoted thead").textContent).toBe("laneusdlowhightime");
    expect(button().disabled).toBe(false);
  });

  it("offers the user's own templates first, and says nothing that they say", async () => {
    const own = { name: "night", kind: "own", based_on: "refresh", description: "the old ones", can: ["edit", "submit"], changed: null, error: "" };
    const code = { ...own, name: "mine", based_on: "session", can: ["edit"] };
    const { choose, find, asked } = open({ "GET /templates": { items: [own, code] } });
    await vi.advanceTimersByTimeAsync(0);
    expect([...find("optgroup").children].map(({ textContent }) => textContent)).toEqual(["night: the old ones"]);
    await choose("night");
    expect(JSON.parse(String(asked.at(-1)!.init.body))).toEqual({ template: "night", params: {} });
  });

  it("saves what is chosen as a template, and writes over none", async () => {
    const { type, find, asked, table } = open({ "PUT /templates/foxes": {} });
    const keep = [...document.querySelectorAll<HTMLButtonElement>("button")].find((button) => button.textContent === "Save as template")!;
    await type("A fox");
    keep.click();
    expect(find(".ib-wrong span").textContent).toContain("needs a name");
    find<HTMLInputElement>("input").value = "foxes";
    await type("A fox");
    keep.click();
    await vi.advanceTimersByTimeAsync(0);
    const put = asked.find(({ init }) => init.method === "PUT")!;
    expect([put.path, (put.init.headers as Record<string, string>)["If-None-Match"]]).toEqual(["/templates/foxes", "*"]);
    expect(JSON.parse(String(put.init.body))).toMatchObject({ based_on: "text", priority: "medium", params: { lane: "batch" } });
    table["PUT /templates/foxes"] = () => Response.json({ message: "there" }, { status: 412 });
    keep.click();
    await vi.advanceTimersByTimeAsync(0);
    expect(find(".ib-wrong span").textContent).toContain("There is a template foxes already");
  });

  it("schedules what is repeated, and shows when it comes", async () => {
    const made = { next: ["2126-12-01T22:00:00", "2126-12-02T22:00:00"] };
    const { type, submit, find, asked, button } = open({ "PUT /schedules/foxes": made, "GET /channels": { items: [{ name: "team", kind: "mail", usable: true }] } });
    await vi.advanceTimersByTimeAsync(0);
    const [start] = find(".ib-occasion").querySelectorAll("input");
    const [repeat, tell] = find(".ib-occasion").querySelectorAll("select");
    find<HTMLInputElement>("input").value = "foxes";
    start!.value = "22:00";
    repeat!.value = "1d";
    tell!.value = "team";
    await type("A fox");
    expect(button().textContent).toBe("Schedule");
    expect(find(".ib-occasion").textContent).toContain("Next: 1 Dec 2126 22:00, 2 Dec 2126 22:00");
    await submit();
    const put = asked.filter(({ init }) => init.method === "PUT").at(-1)!;
    expect(put.path).toBe("/schedules/foxes");
    expect(JSON.parse(String(put.init.body))).toMatchObject({ every: "1d", at: "22:00", misfire: "run", submission: { template: "text", requests: ["A fox"], notify: "team" } });
    expect(JSON.parse(String(put.init.body)).submission.name).toBeUndefined();
    expect(asked.some(({ path, init }) => path === "/submissions" && init.method === "POST")).toBe(false);
  });

  it("counts in the words of what is submitted", () => {
    expect(factsOf({ ...quote, template: "forecast", request_count: 1, seconds: null, usd: null })).toBe("1 partition");
    const credits = { account: "default", cost: 24, used: null, balance: 100, available: 90 };
    expect(factsOf({ ...quote, credits })).toBe("2 requests, about 2 to 3 s, $0.42, 24 credits of 90");
  });

  it("says what the server's check finds, and cannot be sent", async () => {
    const refused = () => Response.json({ message: "requests must be at most 20, got 21" }, { status: 422 });
    const { type, button, find } = open({ "POST /submissions": refused });
    await type(Array.from({ length: 21 }, (_, index) => `prompt ${index}`).join("\n"));
    expect(find(".ib-wrong span").textContent).toBe("requests must be at most 20, got 21");
    expect(find(".ib-hint[data-wrong]").textContent).toBe("21 of at most 20");
    expect(button().disabled).toBe(true);
  });

  it("says how many credits are missing, and cannot be sent", async () => {
    const credits = { account: "default", cost: 24, used: null, balance: 100, available: 20 };
    const { type, button, find } = open({ "POST /submissions": { ...quote, credits } });
    await type("A fox");
    expect(find(".ib-wrong span").textContent).toBe("4 credits are missing: grant them from Python, or submit less");
    expect([find(".ib-quoted .ib-facts-of").hidden, button().disabled]).toEqual([false, true]);
  });

  it("shows the pictures of what was sent, each once, as they come", async () => {
    const files = ["/base/sessions/a-1/files/1.png", "/base/sessions/a-1/files/a%20clip.mp4"];
    const running = { ...submission, state: "RUNNING", session: "a-1", results: files.slice(0, 1) };
    const { type, submit, find, table } = open({ "GET /submissions/s1": running });
    await type("A fox\nA whale");
    table["POST /submissions"] = submission;
    await submit();
    expect(find(".ib-files").hidden).toBe(true);
    await vi.advanceTimersByTimeAsync(1000);
    table["GET /submissions/s1"] = { ...running, results: files };
    await vi.advanceTimersByTimeAsync(1000);
    const links = [...find(".ib-files").querySelectorAll("a")];
    expect(links.map((link) => [link.getAttribute("href"), link.download, link.querySelector("img")?.alt ?? link.textContent])).toEqual([
      [files[0], "1.png", "1.png"],
      [files[1], "a clip.mp4", "a clip.mp4"],
    ]);
  });

  it("sends once, under one key however often it is sent", async () => {
    const { type, submit, asked, table } = open();
    await type("A fox\nA whale");
    table["POST /submissions"] = () => Response.json({ message: "the line was cut" }, { status: 503 });
    await submit();
    table["POST /submissions"] = submission;
    await submit();
    const keys = asked.filter(({ path }) => path === "/submissions").map(({ init }) => (init.headers as Record<string, string>)["Idempotency-Key"]);
    expect(keys).toHaveLength(2);
    expect(new Set(keys).size).toBe(1);
  });

  it("follows what was sent until its results can be fetched", async () => {
    const { type, submit, find, table, finish } = open({ "GET /submissions/s1": { ...submission, state: "RUNNING", session: "a-1", starts: 1 } });
    await type("A fox\nA whale");
    table["POST /submissions"] = submission;
    await submit();
    const state = (): string => find(".ib-follow .ib-state").textContent!;
    expect([find("form").hidden, state()]).toEqual([true, "queued"]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(state()).toBe("running");
    table["GET /submissions/s1"] = { ...submission, state: "COMPLETED", session: "a-1", counts: counts({ completed: 2, total: 2 }) };
    await vi.advanceTimersByTimeAsync(1000);
    const offered = [...find(".ib-follow").querySelectorAll("button")].filter((button) => !button.hidden);
    expect(offered.map((button) => button.textContent)).toEqual(["Open the session", "Download the results", "Submit another"]);
    offered[1]!.click();
    expect(finish.download).toHaveBeenCalledWith("a-1");
  });

  it("uploads a table, and tells of what it has read", async () => {
    const { choose, find, asked, form } = open({ "POST /uploads": { id: "u1", sha256: "", rows: 12_000, columns: ["site", "part"], bytes: 9 } });
    await choose("forecast");
    const input = form.node.querySelector<HTMLInputElement>("input[accept*=parquet]")!;
    Object.defineProperty(input, "files", { value: [new File(["a"], "demand.CSV")] });
    input.dispatchEvent(new Event("change"));
    await vi.advanceTimersByTimeAsync(500);
    expect(input.parentElement!.textContent).toContain("12,000 rows: site, part");
    expect(asked[0]!.init.headers).toEqual({ "Content-Type": "text/csv" });
    expect(JSON.parse(String(asked[1]!.init.body))).toMatchObject({ template: "forecast", upload: "u1" });
    expect(find<HTMLElement>("textarea").closest<HTMLElement>(".ib-ask")!.hidden).toBe(true);
  });
});
