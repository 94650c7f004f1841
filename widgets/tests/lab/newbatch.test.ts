import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { EMPTY, isAskable, requestOf } from "../../lab/src/draft";
import { NewBatch } from "../../lab/src/newbatch";
import { factsOf } from "../../lab/src/quoted";
import { alike, fieldsOf, requestBy, templateOf } from "../../lab/src/own";
import type { Quote, SubmissionRequest } from "../../src/wire";
import { counts } from "../samples";
import { root, schedule, server, tagged, template } from "./samples";

const ZONE = new Intl.DateTimeFormat().resolvedOptions().timeZone;

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

describe("a template of the user's own", () => {
  const table = { based_on: "forecast", params: { by: "warehouse", partition_strategy: "auto", horizon: 14 } };

  it("fills the fields that can show what it says", () => {
    expect(fieldsOf(table)).toMatchObject({ horizon: "14", by: "site", more: '{\n  "by": "warehouse",\n  "partition_strategy": "auto"\n}' });
    expect(fieldsOf(null)).toMatchObject({ lane: "batch", priority: "medium", more: "" });
  });

  it("says no default that it leaves open, neither when it is submitted nor when it is saved", () => {
    const own = { based_on: "forecast", description: "d", params: { partition_strategy: "auto" } };
    const request = requestOf({ ...EMPTY, template: "mine", base: "forecast", own, upload: "u1", more: '{"partition_strategy": "auto"}' });
    expect(requestBy("mine", own, request, false)).toEqual({ template: "mine", upload: "u1", params: {} });
    expect(templateOf(request, own, "e")).toMatchObject({ description: "e", params: own.params, priority: null });
  });

  it("is named by a schedule though its own start is left out", () => {
    const own = { based_on: "refresh", start_at: "22:00", params: {} };
    const request = { template: "refresh", priority: "medium" as const, params: {} };
    expect(requestBy("mine", own, request, true)).toEqual({ template: "mine", params: {} });
    expect(requestBy("mine", own, request, false)).toBe(request);
  });

  it("is alike in whatever order, and whether null is said or not", () => {
    expect(alike({ a: [1, { b: 2 }], c: null }, { a: [1, { b: 2 }] })).toBe(true);
    expect([alike([1, 2], [2, 1]), alike({ a: 1 }, [1]), alike("1", 1), alike({}, null)]).toEqual([false, false, false, false]);
  });
});

describe("the form", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => document.body.replaceChildren());

  function open(table: Parameters<typeof server>[0] = {}) {
    const made = server({ "POST /submissions": quote, "GET /templates": { items: [] }, "GET /channels": { items: [] }, ...table });
    const finish = { open: vi.fn(), download: vi.fn(), sure: vi.fn(() => Promise.resolve(true)), changed: vi.fn() };
    const form = new NewBatch(made.api, finish);
    document.body.append(form.node);
    void form.offer(root);
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
    const named = (label: string): HTMLButtonElement => [...form.node.querySelectorAll("button")].find((one) => one.textContent === label)!;
    const field = (label: string): HTMLInputElement => form.node.querySelector(`#${[...form.node.querySelectorAll("label")].find((one) => one.textContent === label)!.htmlFor}`)!;
    const sent = (): SubmissionRequest => JSON.parse(String(made.asked.filter(({ path }) => path.startsWith("/submissions")).at(-1)!.init.body));
    const headers = (method: string) => made.asked.filter(({ init, path }) => init.method === method && !path.includes("dry_run")).map(({ init }) => init.headers as Record<string, string>);
    return { ...made, form, finish, find, named, field, sent, headers, type, choose, submit, button: () => find<HTMLButtonElement>("button.ib-apply") };
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

  it("offers the user's own templates first, and says why some cannot be chosen", async () => {
    const mine = template("mine", { based_on: "session", can: ["edit"], reason: "is for a function of your own" });
    const broken = template("worn", { based_on: "", can: ["edit"], error: "worn.toml must be TOML" });
    const { find } = open({ "GET /templates": { items: [template("night", { description: "the old ones" }), mine, broken] } });
    await vi.advanceTimersByTimeAsync(0);
    const options = [...find("optgroup").children] as HTMLOptionElement[];
    expect(options.map(({ textContent }) => textContent)).toEqual(["night: the old ones", "mine is for a function of your own", "worn: worn.toml must be TOML"]);
    expect(options.map(({ disabled }) => disabled)).toEqual([false, true, true]);
  });

  it("says that templates and channels cannot be listed, and lists channels when it is tried again", async () => {
    const failing = () => Response.json({ message: "the file of channels cannot be used", next_step: "see why" }, { status: 503 });
    const { find, table, named } = open({ "GET /templates": failing, "GET /channels": failing });
    await vi.advanceTimersByTimeAsync(0);
    expect(find(".ib-hint[data-wrong]").textContent).toBe("Your templates cannot be listed: the file of channels cannot be used: see why");
    expect(find(".ib-beside").textContent).toContain("The channels cannot be listed: the file of channels cannot be used: see why");
    table["GET /channels"] = { items: [{ name: "team", kind: "mail", usable: true }] };
    named("Try again").click();
    await vi.advanceTimersByTimeAsync(0);
    expect([find(".ib-choices").textContent, find(".ib-beside").textContent]).toEqual(["teammail", "Try again"]);
    expect(named("Try again").hidden).toBe(true);
  });

  describe("with a template of the user's own", () => {
    const says = { based_on: "text", description: "captions", start_at: "22:00", zone: "Asia/Tokyo", priority: "low", notify: ["team"], params: { lane: "flex", model: "m", temperature: 0.4 }, asks: [] };
    const night = { "GET /templates": { items: [template("night", { based_on: "text" })] }, "GET /templates/night": tagged(says, "v1"), "GET /channels": { items: [{ name: "team", kind: "mail", usable: true }] } };

    async function chosen(table: Parameters<typeof server>[0] = {}) {
      const made = open({ ...night, ...table });
      await vi.advanceTimersByTimeAsync(0);
      await made.choose("night");
      await made.type("A fox");
      return made;
    }

    it("shows what it says, and leaves that to it", async () => {
      const { field, sent } = await chosen();
      expect(["Lane", "Model", "Priority", "Start", "Time zone"].map((label) => field(label).value)).toEqual(["flex", "m", "low", "22:00", "Asia/Tokyo"]);
      expect(field("More parameters").value).toBe('{\n  "temperature": 0.4\n}');
      expect(document.querySelector<HTMLInputElement>(".ib-choice input")!.checked).toBe(true);
      expect(sent()).toEqual({ template: "night", requests: ["A fox"], params: {} });
    });

    it("asks before another takes the place of what was changed", async () => {
      const { field, type, choose, finish, find } = await chosen();
      const what = () => [find<HTMLSelectElement>("select").value, ...["Lane", "Priority", "Start"].map((label) => field(label).value)];
      await choose("text");
      await choose("night");
      expect(finish.sure).not.toHaveBeenCalled();
      Object.assign(field("Start"), { value: "23:00" });
      await type("A whale");
      finish.sure.mockResolvedValueOnce(false);
      await choose("text");
      expect(finish.sure).toHaveBeenLastCalledWith("Choose Texts?", expect.stringContaining("what you changed"), "Choose");
      expect(what()).toEqual(["night", "flex", "low", "23:00"]);
      await choose("text");
      expect([what(), find<HTMLTextAreaElement>("textarea").value]).toEqual([["text", "batch", "medium", ""], "A whale"]);
    });

    it("asks before it fills what was chosen by hand, and not where it fills nothing", async () => {
      const { field, type, choose, finish, find } = open(night);
      await vi.advanceTimersByTimeAsync(0);
      Object.assign(field("Priority"), { value: "high" });
      await type("A fox");
      await choose("forecast");
      await choose("text");
      expect([finish.sure.mock.calls.length, field("Priority").value]).toEqual([0, "high"]);
      finish.sure.mockResolvedValueOnce(false);
      await choose("night");
      expect(finish.sure).toHaveBeenLastCalledWith("Choose night?", expect.any(String), "Choose");
      expect([find<HTMLSelectElement>("select").value, field("Priority").value]).toEqual(["text", "high"]);
      await choose("night");
      expect([find<HTMLSelectElement>("select").value, field("Priority").value]).toEqual(["night", "low"]);
    });

    it("says what is changed, and names no template that says what was taken out", async () => {
      const { field, type, sent } = await chosen();
      Object.assign(field("Lane"), { value: "online" });
      await type("A fox");
      expect(sent()).toEqual({ template: "night", requests: ["A fox"], params: { lane: "online", model: "m", temperature: 0.4 } });
      Object.assign(field("Start"), { value: "" });
      await type("A fox");
      expect(sent()).toMatchObject({ template: "text", priority: "low", notify: ["team"], params: { lane: "online", model: "m", temperature: 0.4 } });
      expect(sent().start_at).toBeUndefined();
    });

    it("keeps what it says of messages beside the channels, and shows those that are gone", async () => {
      const notify = { channels: ["old"], on: ["failed"] };
      const { find, type, sent } = await chosen({ "GET /templates/night": tagged({ ...says, notify }, "v1") });
      const boxes = () => [...find(".ib-choices").children].map(({ textContent }) => textContent);
      expect([boxes(), sent().notify]).toEqual([["teammail", "oldnot there any more"], undefined]);
      find<HTMLInputElement>(".ib-choices input").click();
      await type("A fox");
      expect(sent().notify).toEqual({ channels: ["old", "team"], on: ["failed"] });
    });

    it("submits what stands here though the template was changed or deleted elsewhere, and says so", async () => {
      const { find, submit, sent, type, table, choose } = await chosen();
      table["GET /templates/night"] = tagged({ ...says, params: { lane: "online" } }, "v2");
      await submit();
      expect(sent()).toMatchObject({ template: "text", start_at: "22:00", params: { lane: "flex", model: "m", temperature: 0.4 } });
      expect(find(".ib-hint[data-wrong]").textContent).toBe("night was changed or deleted elsewhere: what stands here is submitted without it.");
      delete table["GET /templates/night"];
      await type("A whale");
      expect(sent()).toMatchObject({ template: "text", requests: ["A whale"], params: { lane: "flex" } });
      table["GET /templates/night"] = tagged(says, "v3");
      await choose("text");
      await choose("night");
      expect([sent().template, find(".ib-hint[data-wrong]")]).toEqual(["night", null]);
    });

    it("asks before it saves one anew that was deleted elsewhere", async () => {
      const { field, type, named, table, finish, headers } = await chosen();
      Object.assign(field("Priority"), { value: "high" });
      await type("A fox");
      delete table["GET /templates/night"];
      table["PUT /templates/night"] = () => Response.json({ message: "there is no such template" }, { status: 412 });
      finish.sure.mockResolvedValueOnce(false);
      named("Save changes").click();
      await vi.advanceTimersByTimeAsync(0);
      expect(finish.sure).toHaveBeenLastCalledWith("Save template night?", expect.stringContaining("It was deleted"), "Save");
      expect(headers("PUT")).toHaveLength(1);
    });

    it("says that it cannot be read until another is chosen", async () => {
      const { find, choose } = await chosen({ "GET /templates/night": () => Response.json({ message: "night.toml must be TOML" }, { status: 422 }) });
      await vi.advanceTimersByTimeAsync(2000);
      expect(find(".ib-hint[data-wrong]").textContent).toBe("night cannot be read: night.toml must be TOML");
      await choose("text");
      expect(find(".ib-hint[data-wrong]")).toBeNull();
    });

    it("offers those that others make, and marks one that they delete", async () => {
      const { form, find, asked, type, sent } = await chosen();
      const labels = (): (string | null)[] => [...find("select").querySelectorAll("option")].map(({ textContent }) => textContent).slice(0, 2);
      form.heard([template("night", { based_on: "text" }), template("dawn")]);
      expect([labels(), find<HTMLSelectElement>("select").value]).toEqual([["night", "dawn"], "night"]);
      form.heard([template("dawn")]);
      expect([labels(), find<HTMLSelectElement>("select").value]).toEqual([["night is not there any more", "dawn"], "night"]);
      expect(asked.some(({ init }) => init.method === "PUT")).toBe(false);
      await type("A fox");
      expect(sent().requests).toEqual(["A fox"]);
      form.heard([template("night", { based_on: "text" })]);
      expect([labels()[0], find<HTMLSelectElement>("select").value]).toEqual(["night", "night"]);
    });

    it("gives the fields back to one that is shipped", async () => {
      const { field, choose } = await chosen();
      await choose("text");
      expect(["Lane", "Model", "Priority", "Start", "More parameters"].map((label) => field(label).value)).toEqual(["batch", "", "medium", "", ""]);
    });

    it("saves what is changed as it was read, and asks where it was changed meanwhile", async () => {
      const { field, type, named, asked, table, finish, headers } = await chosen();
      expect(named("Save changes").disabled).toBe(true);
      Object.assign(field("Priority"), { value: "high" });
      Object.assign(field("Description"), { value: "captions of the night " });
      await type("A fox");
      table["PUT /templates/night"] = () => Response.json({ message: "changed" }, { status: 412 });
      table["GET /templates/night"] = tagged({ ...says, description: "other" }, "v2");
      finish.sure.mockResolvedValueOnce(false);
      named("Save changes").click();
      await vi.advanceTimersByTimeAsync(0);
      expect(finish.sure).toHaveBeenLastCalledWith("Replace template night?", expect.any(String), "Replace");
      expect([headers("PUT").map((one) => one["If-Match"]), finish.changed.mock.calls]).toEqual([["v1"], []]);
      let puts = 0;
      table["PUT /templates/night"] = () => Response.json({}, { status: (puts += 1) === 1 ? 412 : 200 });
      named("Save changes").click();
      await vi.advanceTimersByTimeAsync(0);
      expect(headers("PUT").map((one) => one["If-Match"])).toEqual(["v1", "v1", "v2"]);
      expect(JSON.parse(String(asked.filter(({ init }) => init.method === "PUT").at(-1)!.init.body))).toEqual({ ...says, priority: "high", description: "captions of the night" });
      expect(finish.changed).toHaveBeenCalledWith("templates");
    });

    it("deletes it as it was read, once somebody says so", async () => {
      const { named, table, finish, headers, find } = await chosen({ "DELETE /templates/night": () => new Response(null, { status: 204 }) });
      finish.sure.mockResolvedValueOnce(false);
      named("Delete template").click();
      await vi.advanceTimersByTimeAsync(0);
      expect(headers("DELETE")).toEqual([]);
      table["GET /templates"] = { items: [] };
      const before = named("Delete template");
      before.click();
      await vi.advanceTimersByTimeAsync(0);
      expect(headers("DELETE").map((one) => one["If-Match"])).toEqual(["v1"]);
      expect([find<HTMLSelectElement>("select").value, find(".ib-said-of").textContent, before.hidden]).toEqual(["text", "Deleted: night.", true]);
    });
  });

  it("saves what is chosen as a template, and writes over none without a question", async () => {
    const { type, find, asked, table, named, finish, headers } = open({ "PUT /templates/foxes": {} });
    await type("A fox");
    named("Save as template").click();
    expect(find(".ib-said-of").textContent).toContain("needs a name");
    find<HTMLInputElement>("input").value = "foxes";
    await type("A fox");
    named("Save as template").click();
    await vi.advanceTimersByTimeAsync(0);
    const put = asked.find(({ init }) => init.method === "PUT")!;
    expect([put.path, headers("PUT")[0]!["If-None-Match"]]).toEqual(["/templates/foxes", "*"]);
    expect(JSON.parse(String(put.init.body))).toMatchObject({ based_on: "text", priority: "medium", params: { lane: "batch" } });
    expect(find(".ib-said-of").textContent).toBe("Saved: foxes is among your templates.");
    table["PUT /templates/foxes"] = () => Response.json({ message: "there" }, { status: 412 });
    table["GET /templates/foxes"] = () => Response.json({ message: "broken" }, { status: 422 });
    finish.sure.mockResolvedValueOnce(false);
    await type("A fox");
    named("Save as template").click();
    await vi.advanceTimersByTimeAsync(0);
    expect([finish.sure.mock.calls.length, headers("PUT").length]).toEqual([1, 2]);
  });

  it("schedules what is repeated, once, by the clocks of this browser, and shows when it comes", async () => {
    const made = { next: ["2126-12-01T22:00:00", "2126-12-02T22:00:00"], zone: ZONE };
    const channels = ["team", "me"].map((name) => ({ name, kind: "mail", usable: true }));
    const { type, submit, find, asked, button, finish, field, headers, table } = open({ "PUT /schedules/foxes": made, "GET /channels": { items: channels } });
    await vi.advanceTimersByTimeAsync(0);
    find<HTMLInputElement>("input").value = "foxes";
    Object.assign(field("Start"), { value: "22:00" });
    Object.assign(field("Repeat"), { value: "1d" });
    for (const box of find(".ib-choices").querySelectorAll("input")) box.click();
    await type("A fox");
    expect(button().textContent).toBe("Schedule");
    expect(find(".ib-occasion").textContent).toContain("Next: 1 Dec 2126 22:00, 2 Dec 2126 22:00");
    await submit();
    const put = asked.filter(({ init }) => init.method === "PUT").at(-1)!;
    expect(put.path).toBe("/schedules/foxes");
    expect(JSON.parse(String(put.init.body))).toEqual({
      every: "1d",
      at: "22:00",
      zone: ZONE,
      misfire: "run",
      submission: { template: "text", priority: "medium", requests: ["A fox"], params: { lane: "batch" }, notify: ["team", "me"] },
    });
    expect(asked.some(({ path, init }) => path === "/submissions" && init.method === "POST")).toBe(false);
    expect([button().disabled, find(".ib-quoted").textContent, finish.changed.mock.calls]).toEqual([
      true,
      expect.stringContaining("Scheduled: foxesIt comes next on 1 Dec 2126 at 22:00, and stands in the side bar."),
      [["schedules"]],
    ]);
    const before = asked.length;
    await submit();
    expect(asked.length).toBe(before);
    table["PUT /schedules/foxes"] = () => Response.json(made, { status: "If-None-Match" in asked.at(-1)!.init.headers! ? 412 : 200 });
    table["GET /schedules/foxes"] = tagged(made, "v7");
    await type("A whale");
    await submit();
    expect(finish.sure).toHaveBeenLastCalledWith("Replace schedule foxes?", expect.any(String), "Replace");
    expect(headers("PUT").at(-1)!["If-Match"]).toBe("v7");
  });

  it("begins hourly and by a cron rule when it is told to, and once in the zone that is chosen", async () => {
    const { type, field, asked, sent } = open({ "PUT /schedules/preview": { next: [], zone: ZONE } });
    const put = (): Record<string, unknown> => JSON.parse(String(asked.filter(({ init }) => init.method === "PUT").at(-1)!.init.body));
    Object.assign(field("Start"), { value: "22:00" });
    Object.assign(field("Repeat"), { value: "1h" });
    await type("A fox");
    expect(put()).toMatchObject({ every: "1h", start_at: "22:00", zone: ZONE });
    Object.assign(field("Repeat"), { value: "cron" });
    Object.assign(field("Cron rule"), { value: "0 22 * * 1-5" });
    await type("A fox");
    expect(put()).toMatchObject({ cron: "0 22 * * 1-5", start_at: "22:00" });
    Object.assign(field("Repeat"), { value: "" });
    Object.assign(field("Time zone"), { value: "Asia/Tokyo" });
    await type("A fox");
    expect(sent()).toMatchObject({ start_at: "22:00", zone: "Asia/Tokyo" });
    Object.assign(field("Start"), { value: "" });
    await type("A fox");
    expect(sent().zone).toBeUndefined();
  });

  it("keeps what it does not show of a schedule that it replaces: a pause, an end, and how late is late", async () => {
    const now = { ...schedule("foxes", { paused: true, state: "paused", grace: "2h", until: "2126-12-31", next: ["2126-12-01T22:00:00"] }) };
    const { type, submit, find, field, finish, table, asked } = open({ "GET /schedules/foxes": tagged(now, "v7") });
    table["PUT /schedules/foxes"] = () => Response.json(now, { status: "If-None-Match" in asked.at(-1)!.init.headers! ? 412 : 200 });
    const body = (): Record<string, unknown> => JSON.parse(String(asked.filter(({ init }) => init.method === "PUT").at(-1)!.init.body));
    find<HTMLInputElement>("input").value = "foxes";
    Object.assign(field("Repeat"), { value: "1d" });
    await type("A fox");
    await submit();
    expect(finish.sure).toHaveBeenLastCalledWith("Replace schedule foxes?", expect.stringContaining("It is paused, and stays so."), "Replace");
    expect(body()).toMatchObject({ paused: true, grace: "2h", until: "2126-12-31" });
    expect(find(".ib-quoted").textContent).toContain("It is paused, and stands in the side bar.");
    table["GET /schedules/foxes"] = tagged({ ...now, next: [], state: "ended", paused: false, until: "2020-01-01" }, "v8");
    await type("A whale");
    await submit();
    expect("until" in body()).toBe(false);
  });

  it("says that a name cannot be one, where an address takes it for a folder", async () => {
    const { type, find, field, named, headers, button, table } = open();
    Object.assign(field("Repeat"), { value: "1d" });
    table["PUT /schedules/preview"] = { next: ["2126-12-01T22:00:00"], zone: ZONE };
    await type("A fox");
    expect(find(".ib-occasion").textContent).toContain("Next: 1 Dec 2126");
    find<HTMLInputElement>("input").value = "..";
    await type("A fox");
    expect(find(".ib-occasion").textContent).not.toContain("Next:");
    expect(find(".ib-quoted").textContent).toContain("The name must be another one than \u201c..\u201d");
    named("Save as template").click();
    await vi.advanceTimersByTimeAsync(0);
    expect(find(".ib-said-of").textContent).toContain("The name must be another one than \u201c..\u201d");
    expect([headers("PUT"), button().disabled]).toEqual([[], true]);
  });

  it("tells of tomorrow anew when a day is over", async () => {
    vi.setSystemTime(new Date(2126, 11, 1, 21, 0));
    const next = [1, 2].map((day) => new Date(2126, 11, day, 22).toISOString());
    const { form, type, find, field, submit } = open({ "PUT /schedules/foxes": { next, zone: ZONE, paused: false } });
    find<HTMLInputElement>("input").value = "foxes";
    Object.assign(field("Repeat"), { value: "1d" });
    await type("A fox");
    expect(find(".ib-occasion").textContent).toContain("Next: 22:00, tomorrow 22:00");
    await submit();
    expect(find(".ib-quoted").textContent).toContain("It comes next today at 22:00");
    vi.setSystemTime(new Date(2126, 11, 2, 0, 0, 1));
    form.tick();
    expect(find(".ib-occasion").textContent).toContain("Next: 22:00");
    expect(find(".ib-occasion").textContent).not.toContain("tomorrow");
    expect(find(".ib-quoted").textContent).toContain("Scheduled: foxesIt stands in the side bar.");
    vi.setSystemTime(new Date(2126, 11, 2, 23));
  });

  it("has the focus on what comes first, or on what became of it", async () => {
    const { form, find, type, submit, table } = open();
    form.focus();
    expect(document.activeElement).toBe(find("select"));
    await type("A fox");
    table["POST /submissions"] = { ...submission, state: "RUNNING", session: "a-1" };
    await submit();
    form.focus();
    expect(document.activeElement!.textContent).toBe("Open the session");
    form.close();
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

  it("sends the same under the same key though something was typed and taken back, and another under another", async () => {
    const { type, submit, asked, table } = open();
    const failing = () => Response.json({ message: "the line was cut" }, { status: 503 });
    for (const text of ["A fox", "A whale", "A fox"]) {
      table["POST /submissions"] = quote;
      await type(text);
      await type("A fox");
      if (text === "A whale") await type("A whale");
      table["POST /submissions"] = failing;
      await submit();
      if (text === "A fox") await submit();
    }
    const keys = asked.filter(({ path }) => path === "/submissions").map(({ init }) => (init.headers as Record<string, string>)["Idempotency-Key"]);
    expect(keys).toHaveLength(5);
    expect([keys[0] === keys[1], keys[1] === keys[2], keys[3] === keys[4]]).toEqual([true, false, true]);
    table["POST /submissions"] = quote;
    await type("A whale");
    await type("A fox");
    table["POST /submissions"] = failing;
    await submit();
    expect(asked.at(-1)!.init.headers).toMatchObject({ "Idempotency-Key": keys[4] });
  });

  it("sends no picture that is not shown", async () => {
    expect(requestOf({ ...EMPTY, template: "text", lines: "a", image: "QUJD" }).requests).toEqual(["a"]);
    expect(requestOf({ ...EMPTY, template: "mine", base: "text-to-image", lines: "a", image: "QUJD" }).requests).toEqual(["a"]);
  });

  it("cannot be sent while a file is read, and takes the file that was chosen last", async () => {
    const { form, type, button, find } = open();
    const [from, image] = [form.node.querySelector<HTMLInputElement>("input[accept*=jsonl]")!, form.node.querySelector<HTMLInputElement>("input[accept^=image]")!];
    const reads: ((text: string) => void)[] = [];
    const file = (name: string) => Object.assign(new File([""], name), { text: () => new Promise<string>((resolve) => void reads.push(resolve)) });
    await type("old");
    const pick = (input: HTMLInputElement, one: File): void => {
      Object.defineProperty(input, "files", { value: [one], configurable: true });
      input.dispatchEvent(new Event("change"));
    };
    pick(from, file("a.txt"));
    pick(from, file("b.txt"));
    expect(button().disabled).toBe(true);
    reads[1]!("of b");
    await vi.advanceTimersByTimeAsync(500);
    expect(button().disabled).toBe(true);
    reads[0]!("of a");
    await vi.advanceTimersByTimeAsync(500);
    expect([find<HTMLTextAreaElement>("textarea").value, button().disabled]).toEqual(["of b", false]);
    pick(image, Object.assign(new File([""], "fox.png"), { arrayBuffer: () => Promise.reject(new Error("it was moved")) }));
    await vi.advanceTimersByTimeAsync(500);
    expect(image.parentElement!.textContent).toContain("fox.png cannot be read: it was moved");
  });

  it("takes the table that was chosen last, whichever is uploaded first", async () => {
    const ends: (() => void)[] = [];
    const { choose, asked, form, ask } = open();
    await choose("forecast");
    const answer = ask.getMockImplementation()!;
    ask.mockImplementation((path, init) => {
      if (path !== "/uploads") return answer(path, init);
      const id = ends.length ? "second" : "first";
      return new Promise((resolve) => void ends.push(() => resolve(Response.json({ id, rows: 1, columns: [id] }))));
    });
    const input = form.node.querySelector<HTMLInputElement>("input[accept*=parquet]")!;
    for (const name of ["a.csv", "b.csv"]) {
      Object.defineProperty(input, "files", { value: [new File(["a"], name)], configurable: true });
      input.dispatchEvent(new Event("change"));
    }
    for (const end of ends.reverse()) {
      end();
      await vi.advanceTimersByTimeAsync(500);
    }
    expect(input.parentElement!.textContent).toContain("1 row: second");
    expect(JSON.parse(String(asked.at(-1)!.init.body))).toMatchObject({ upload: "second" });
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
