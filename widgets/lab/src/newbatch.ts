// Newbatch: a form that submits prompts or a table without any code: choose, see what it would take, submit, follow.
//
// Rule: what is wrong is said by the server's own check (a dry run), while it is typed; nothing is reserved by it.
import { attribute, h, hidden, text } from "../../src/dom";
import { count, figure } from "../../src/format";
import { icon } from "../../src/icons";
import type { Quote, Root, Schedule, ScheduleRequest, Submission, SubmissionRequest, Template, TemplateItem, Upload, UrgencyWord } from "../../src/wire";
import { Api, words } from "./api";
import { EMPTY, isAskable, isShipped, kindOf, linesOf, requestOf, takesPicture, titleOf, type Draft } from "./draft";
import { choice, entry, Field, option } from "./field";
import { Follow, type Finish } from "./follow";
import { Occasion } from "./occasion";
import { overwrite } from "./overwrite";
import { fieldsOf, requestBy, templateOf } from "./own";
import { Quoted } from "./quoted";
import { Shelf } from "./shelf";
import { dayWords } from "./told";
import { pathOf } from "./verbs";

const TYPED_MS = 400;
const TABLES: Record<string, string> = {
  csv: "text/csv",
  parquet: "application/vnd.apache.parquet",
  xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
};
const HINTS = {
  prompts: "One a line. A line may be an object too: {\"id\": 7, \"prompt\": \"\u2026\"}",
  ids: "App ids, one a line; none: all that the library holds.",
};

/** What the form has done for it by JupyterLab. */
export interface Doors extends Finish {
  /** Ask before something is lost. */
  sure(title: string, body: string, label: string): Promise<boolean>;
  /** Templates, or schedules, are others now. */
  changed(what: "templates" | "schedules"): void;
}

export class NewBatch {
  private readonly template = new Field(choice([]), "What");
  private readonly name = new Field(entry("text", "automatic"), "Name");
  private readonly lines = new Field(Object.assign(h("textarea"), { rows: 7, spellcheck: false }), "Prompts", HINTS.prompts);
  private readonly from = new Field(entry("file"), "From a file", "Text or JSON lines; it fills the prompts.");
  private readonly image = new Field(entry("file"), "Picture", "Goes with every prompt; none is needed.");
  private readonly table = new Field(entry("file"), "Table", "CSV, Parquet or Excel; it stays on the server for a day.");
  private readonly lane = new Field(choice([["batch", "Batch: half the price, within a day"], ["online", "Online: at once"], ["flex", "Flex: half the price, when there is room"], ["auto", "What the quote recommends"]]), "Lane");
  private readonly model = new Field(entry("text", "automatic"), "Model");
  private readonly horizon = new Field(entry("number"), "Horizon", "Steps ahead.");
  private readonly by = new Field(choice([["site", "Site"], ["size", "Size"]]), "Partition by");
  private readonly priority = new Field(choice([["high", "High: first in the queue"], ["medium", "Medium"], ["low", "Low"]]), "Priority");
  private readonly more = new Field(Object.assign(h("textarea"), { rows: 2, spellcheck: false }), "More parameters", 'A JSON object, such as {"temperature": 0.4}');
  private readonly about = new Field(entry("text"), "Description", "Of the template that is saved.");
  private readonly details = h("details");
  private readonly occasion = new Occasion();
  private readonly quoted = new Quoted();
  private readonly label = h("span", "", "Submit");
  private readonly submit = h("button", "apply", icon("resume"), this.label);
  private readonly shelf: Shelf;
  private readonly form: HTMLFormElement;
  private readonly follow: Follow;
  private draft: Draft = { ...EMPTY };
  private limits: Record<string, number> = {};
  private asked = 0;
  /** What was sent, and under which key: whatever is pressed in between, the same is sent once. */
  private sent = { body: "", key: "" };
  /** Files that are read just now. */
  private reading = 0;
  /** When it was drawn, and the schedule that was made: `tomorrow` is told by that. */
  private day = new Date().toDateString();
  private scheduled = "";
  /** Whether what stands here can be sent: it was asked what it would take, and not sent since. */
  private isReady = false;
  private isSending = false;
  /** Whether a template of the user's own fills the fields, and how they stood before anything was changed there. */
  private isShown = false;
  private untouched = "";
  private typing: ReturnType<typeof setTimeout> | undefined;
  readonly node: HTMLElement;

  constructor(private readonly api: Api, private readonly doors: Doors) {
    this.follow = new Follow(api, doors, () => this.again());
    this.shelf = new Shelf(api, {
      sure: (...question) => doors.sure(...question),
      name: () => this.draft.name.trim(),
      template: () => templateOf(this.occasion.once(requestOf(this.draft)), this.draft.own, this.about.control.value.trim()),
      changed: (name) => this.reshelved(name),
    });
    this.from.control.accept = ".txt,.jsonl,.ndjson,text/plain";
    this.image.control.accept = "image/*";
    this.table.control.accept = Object.keys(TABLES).map((type) => `.${type}`).join();
    Object.assign(this.horizon.control, { min: "1", value: EMPTY.horizon });
    this.priority.control.value = EMPTY.priority;
    this.details.append(h("summary", "", "More"), this.model.node, this.more.node, this.about.node);
    const row = (...fields: { node: HTMLElement }[]): HTMLElement => h("div", "pair", ...fields.map(({ node }) => node));
    this.form = h(
      "form",
      "draft",
      h("h2", "", "New batch"),
      row(this.template, this.name),
      this.table.node,
      this.lines.node,
      row(this.from, this.image),
      row(this.lane, this.horizon, this.by, this.priority),
      this.occasion.node,
      this.details,
      this.quoted.node,
      h("div", "actions", this.submit, this.shelf.buttons),
      this.shelf.node,
    );
    this.form.noValidate = true;
    this.submit.type = "submit";
    this.settle();
    this.listen();
    this.node = h("div", "new", this.form, this.follow.node);
    this.node.setAttribute("data-lm-suppress-shortcuts", "true");
    this.arrange();
    this.untouched = this.stand;
  }

  /** What the server offers and allows; `template` is the one of the user's own to begin with. */
  async offer({ templates, limits }: Root, template = ""): Promise<void> {
    const { control } = this.template;
    if (control.length) return;
    this.limits = limits;
    for (const name of templates.filter(isShipped)) control.append(option(name, titleOf(name)));
    void this.occasion.offer(this.api);
    control.value = templates.includes("text") ? "text" : (templates[0] ?? "");
    this.arrange();
    await this.offerOwn();
    if (template && this.shelf.find(template)?.can.includes("submit")) await this.choose(template);
  }

  /** Offer the user's own templates before those that are shipped. */
  private async offerOwn(): Promise<void> {
    const trouble = await this.shelf.list();
    this.template.say(trouble, trouble !== "");
    this.relist();
  }

  /** Take which templates the user has now; others may have made, changed or deleted some. */
  heard(templates: TemplateItem[]): void {
    if (this.template.control.length && this.shelf.heard(templates)) this.relist();
  }

  private relist(): void {
    const { control } = this.template;
    const { value } = control;
    for (const old of control.querySelectorAll("optgroup, [data-gone]")) old.remove();
    const group = this.shelf.options();
    if (group) control.prepend(group);
    control.value = value;
    if (control.value === value) return;
    const gone = option(value, `${value} is not there any more`);
    gone.setAttribute("data-gone", "");
    control.prepend(gone);
    control.value = value;
  }

  /** Time has passed: a day is another one. */
  tick(): void {
    const day = new Date().toDateString();
    if (day === this.day) return;
    this.day = day;
    this.occasion.retell();
    if (this.scheduled) this.quoted.done(this.scheduled, "It stands in the side bar.");
  }

  private async reshelved(name: string): Promise<void> {
    this.doors.changed("templates");
    await this.offerOwn();
    await this.choose(name || this.draft.base);
  }

  /** Choose another template, unless that would write over what was changed here and is to stay. */
  private async change(): Promise<void> {
    const { control } = this.template;
    const { value } = control;
    const isFilled = this.isShown || this.shelf.find(value) !== undefined;
    const lost = `What ${this.shelf.find(value) ? "it says" : "holds by default"} takes the place of what you changed below. Prompts and name stay.`;
    if (isFilled && this.stand !== this.untouched && !(await this.doors.sure(`Choose ${titleOf(value)}?`, lost, "Choose"))) {
      control.value = this.draft.template;
      return;
    }
    if (control.value === value) await this.choose(value);
  }

  /** Choose a template, and show what it says, if it is of the user's own. */
  private async choose(name: string): Promise<void> {
    const { control } = this.template;
    control.value = name;
    for (const gone of control.querySelectorAll<HTMLOptionElement>("[data-gone]")) if (gone.value !== name) gone.remove();
    this.template.say("");
    this.draft.own = null;
    this.arrange();
    try {
      const own = await this.shelf.choose(name);
      if (control.value !== name) return; // another was chosen meanwhile
      this.draft.own = own;
      if (own || this.isShown) this.show(own);
      this.arrange();
    } catch (error) {
      if (control.value === name) this.template.say(`${name} cannot be read: ${words(error)}`, true);
    }
  }

  /** Show what a template says; null for none. */
  private show(own: Template | null): void {
    this.isShown = own !== null;
    const { lane, model, horizon, by, priority, more } = fieldsOf(own);
    const values = [lane, model, horizon, by, priority, more, own?.description ?? ""];
    this.fillable.forEach(({ control }, at) => (control.value = values[at]!));
    this.more.control.rows = Math.min(12, Math.max(2, more.split("\n").length));
    this.details.open = Boolean(model || more);
    this.occasion.fill(own);
    this.untouched = this.stand;
  }

  /** The fields that a template fills, beside those of its occasion. */
  private get fillable(): Field<HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement>[] {
    return [this.lane, this.model, this.horizon, this.by, this.priority, this.more, this.about];
  }

  /** What stands in them. */
  private get stand(): string {
    return JSON.stringify([this.fillable.map(({ control }) => control.value), this.occasion.once({ template: "" })]);
  }

  /** The server cannot be asked. */
  refuse(words: string): void {
    this.quoted.refuse(words);
  }

  focus(): void {
    const control = this.form.hidden ? this.follow.node.querySelector<HTMLElement>("button:not([hidden])") : this.template.control;
    control?.focus();
  }

  close(): void {
    clearTimeout(this.typing);
    this.follow.close();
  }

  private listen(): void {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.send();
    });
    this.form.addEventListener("input", () => this.typed());
    this.template.control.addEventListener("change", () => void this.change());
    this.from.control.addEventListener("change", () => void this.fill());
    this.image.control.addEventListener("change", () => void this.picture());
    this.table.control.addEventListener("change", () => void this.upload());
  }

  /** Show the fields that the template has. */
  private arrange(): void {
    const { draft } = this;
    draft.template = this.template.control.value;
    draft.base = draft.own?.based_on ?? this.shelf.find(draft.template)?.based_on ?? "";
    const template = draft.base || draft.template;
    const kind = kindOf(template);
    this.table.show(kind === "table");
    this.lines.show(kind !== "table");
    this.lines.rename(kind === "ids" ? "App ids" : "Prompts");
    this.from.show(kind !== "table");
    this.image.show(takesPicture(template));
    this.lane.show(kind === "prompts");
    this.model.show(kind === "prompts");
    this.horizon.show(kind === "table");
    this.by.show(kind === "table");
    this.typed();
  }

  private typed(): void {
    const { draft } = this;
    this.occasion.arrange();
    const { isRepeated } = this.occasion;
    text(this.label, isRepeated ? "Schedule" : "Submit");
    this.name.say(isRepeated ? "Each time is a new run: this name, and when." : "The same name continues what it has recorded.");
    draft.name = this.name.control.value;
    draft.priority = this.priority.control.value as UrgencyWord;
    draft.lines = this.lines.control.value;
    draft.lane = this.lane.control.value;
    draft.model = this.model.control.value;
    draft.horizon = this.horizon.control.value;
    draft.by = this.by.control.value;
    draft.more = this.more.control.value;
    this.countLines();
    this.shelf.patch();
    this.isReady = false;
    this.scheduled = "";
    this.settle();
    clearTimeout(this.typing);
    this.typing = setTimeout(() => void this.quote(), TYPED_MS);
  }

  private countLines(): void {
    const kind = kindOf(this.draft.base || this.draft.template);
    if (kind === "table") return;
    const lines = linesOf(this.draft.lines).length;
    const most = this.limits["max_requests"] ?? Infinity;
    const of = lines ? `${count(lines)}${Number.isFinite(most) ? ` of at most ${count(most)}` : ""}` : HINTS[kind];
    this.lines.say(of, lines > most);
  }

  /** It can be sent once: while it is on its way, and when it has arrived, only another can be. */
  private settle(): void {
    this.submit.disabled = !this.isReady || this.isSending || this.reading > 0;
    attribute(this.submit, "aria-busy", this.isSending ? "true" : null);
  }

  /** Something of what is submitted, as it stands now; throws a sentence where that is nothing.
   *
   * A template that says something else by now would submit what nobody sees here: it is not named then. */
  private async stated<T>(of: (request: SubmissionRequest) => T): Promise<T> {
    const { template, own } = this.draft;
    const request = this.occasion.of(requestOf(this.draft));
    const whole = of(request);
    if (!own) return whole;
    const named = of(requestBy(template, own, request, this.occasion.isRepeated));
    const isAsRead = await this.shelf.isAsRead();
    if (this.draft.own === own) this.template.say(isAsRead ? "" : `${template} was changed or deleted elsewhere: what stands here is submitted without it.`, !isAsRead);
    return isAsRead ? named : whole;
  }

  private async quote(): Promise<void> {
    const asked = (this.asked += 1);
    if (!isAskable(this.draft)) return this.quoted.wait("Nothing is reserved or sent before you submit.");
    try {
      const request = await this.stated((one) => one);
      if (asked !== this.asked) return;
      this.quoted.wait("Reckoning\u2026");
      const quote = await this.api.post<Quote>("/submissions?dry_run=1", request);
      if (asked !== this.asked) return;
      if (this.occasion.isRepeated) await this.foretell();
      if (asked !== this.asked) return;
      const { credits } = quote;
      const isShort = credits !== null && credits.cost > credits.available;
      this.quoted.tell(quote, isShort ? `${figure(credits.cost - credits.available)} credits are missing: grant them from Python, or submit less` : "");
      this.isReady = !isShort;
      this.settle();
    } catch (error) {
      if (asked !== this.asked) return;
      this.quoted.refuse(words(error));
      this.occasion.told(null); // it would not come at all
    }
  }

  /** See when a schedule of it would come, and what is wrong with that. */
  private async foretell(): Promise<void> {
    const schedule = await this.stated((request) => this.occasion.schedule(request));
    this.occasion.told(await this.api.put<Schedule>(`${pathOf(this.draft.name.trim() || "preview")}?dry_run=1`, schedule));
  }

  private async send(): Promise<void> {
    if (this.submit.disabled) return;
    this.isSending = true;
    this.settle();
    try {
      if (this.occasion.isRepeated) await this.schedule();
      else await this.post();
    } catch (error) {
      this.quoted.refuse(words(error));
    }
    this.isSending = false;
    this.settle();
  }

  private async schedule(): Promise<void> {
    const name = this.draft.name.trim();
    if (!name) return this.quoted.refuse("A schedule needs a name, above.");
    const { asked } = this;
    const ask = (now: Schedule | null): Promise<boolean> => {
      const paused = now?.paused ? " It is paused, and stays so." : "";
      return this.doors.sure(`Replace schedule ${name}?`, `What stands here takes its place. What it has submitted stays.${paused}`, "Replace");
    };
    const schedule = await this.stated((request) => this.occasion.schedule(request));
    const made = await overwrite<Schedule>(this.api, pathOf(name), (now) => over(now, schedule), { "If-None-Match": "*" }, ask);
    if (made === null) return;
    this.doors.changed("schedules");
    if (asked !== this.asked) return; // something else stands here by now
    this.isReady = false;
    this.scheduled = `Scheduled: ${name}`;
    const when = made.paused ? "It is paused, and stands" : made.next[0] ? `It comes next ${whenNext(made.next[0])}, and stands` : "It stands";
    this.quoted.done(this.scheduled, `${when} in the side bar.`);
  }

  private async post(): Promise<void> {
    const request = await this.stated((one) => one);
    // Pressed twice, or sent again after a cut line, it is one submission, whatever was typed and taken back between.
    const body = JSON.stringify(request);
    if (body !== this.sent.body) this.sent = { body, key: crypto.getRandomValues(new Uint32Array(4)).join("-") };
    const submission = await this.api.post<Submission>("/submissions", request, { "Idempotency-Key": this.sent.key });
    this.isReady = false;
    hidden(this.form, true);
    this.follow.show(submission);
  }

  private again(): void {
    this.sent = { body: "", key: "" };
    hidden(this.form, false);
    this.typed();
    this.template.control.focus();
  }

  private async fill(): Promise<void> {
    const lines = await this.read(this.from, (file) => file.text());
    if (lines !== null) this.lines.control.value = lines;
    this.typed();
  }

  private async picture(): Promise<void> {
    this.draft.image = "";
    const bytes = await this.read(this.image, (file) => file.arrayBuffer());
    if (bytes !== null) this.draft.image = base64(new Uint8Array(bytes));
    this.typed();
  }

  /** What is in the file of a field; null for none, and where another was chosen meanwhile. */
  private async read<T>(field: Field<HTMLInputElement>, how: (file: File) => Promise<T>): Promise<T | null> {
    const [file] = field.control.files ?? [];
    if (!file) return null;
    this.reading += 1;
    this.settle();
    try {
      const found = await how(file);
      if (field.control.files?.[0] !== file) return null;
      field.say(field.hint);
      return found;
    } catch (error) {
      field.say(`${file.name} cannot be read: ${words(error)}`, true);
      return null;
    } finally {
      this.reading -= 1;
    }
  }

  private async upload(): Promise<void> {
    const [file] = this.table.control.files ?? [];
    this.draft.upload = "";
    if (!file) return this.typed();
    this.table.say(`Uploading ${file.name}\u2026`);
    try {
      const type = TABLES[file.name.split(".").at(-1)!.toLowerCase()] ?? (file.type || "text/csv");
      const { id, rows, columns } = await this.api.send<Upload>("/uploads", file, type);
      if (this.table.control.files?.[0] !== file) return; // another was chosen meanwhile
      this.draft.upload = id;
      this.table.say(`${count(rows)} ${rows === 1 ? "row" : "rows"}: ${columns.join(", ")}`);
    } catch (error) {
      if (this.table.control.files?.[0] !== file) return;
      this.table.say(words(error), true);
    }
    this.typed();
  }
}

/** What takes the place of a schedule: what the form does not show stays, a pause and an end that is to come too. */
function over(now: Schedule | null, schedule: ScheduleRequest): ScheduleRequest {
  if (now === null) return schedule;
  const { paused, grace, until, next } = now;
  return { ...schedule, paused, grace, ...(next.length ? { until } : {}) };
}

/** `today at 22:00`, `tomorrow at 22:00`, `on 28 Nov at 22:00`. */
function whenNext(iso: string): string {
  const [time = "", ...day] = dayWords(iso).split(" ").toReversed();
  const words = day.toReversed().join(" ");
  return `${words === "" ? "today" : words === "tomorrow" ? words : `on ${words}`} at ${time}`;
}

function base64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(binary);
}

