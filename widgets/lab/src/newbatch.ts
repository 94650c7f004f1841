// Newbatch: a form that submits prompts or a table without any code: choose, see what it would take, submit, follow.
//
// Rule: what is wrong is said by the server's own check (a dry run), while it is typed; nothing is reserved by it.
import { attribute, h, hidden, text } from "../../src/dom";
import { count, figure } from "../../src/format";
import { icon } from "../../src/icons";
import type { Quote, Root, Schedule, Submission, Template, TemplateList, Upload, UrgencyWord } from "../../src/wire";
import { Api, Refused, words } from "./api";
import { EMPTY, isAskable, isShipped, kindOf, linesOf, requestOf, titleOf, type Draft } from "./draft";
import { choice, entry, Field, option } from "./field";
import { Follow, type Finish } from "./follow";
import { Occasion } from "./occasion";
import { Quoted } from "./quoted";
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
  private readonly occasion = new Occasion();
  private readonly quoted = new Quoted();
  private readonly label = h("span", "", "Submit");
  private readonly submit = h("button", "apply", icon("resume"), this.label);
  private readonly keep = h("button", "", "Save as template");
  /** The templates of the user's own, with what each is built on. */
  private readonly bases = new Map<string, string>();
  private readonly form: HTMLFormElement;
  private readonly follow: Follow;
  private draft: Draft = { ...EMPTY };
  private limits: Record<string, number> = {};
  private asked = 0;
  private key = "";
  private typing: ReturnType<typeof setTimeout> | undefined;
  readonly node: HTMLElement;

  constructor(private readonly api: Api, finish: Finish) {
    this.follow = new Follow(api, finish, () => this.again());
    this.from.control.accept = ".txt,.jsonl,.ndjson,text/plain";
    this.image.control.accept = "image/*";
    this.table.control.accept = Object.keys(TABLES).map((type) => `.${type}`).join();
    Object.assign(this.horizon.control, { min: "1", value: EMPTY.horizon });
    this.priority.control.value = EMPTY.priority;
    const more = h("details", "", h("summary", "", "More"), this.model.node, this.more.node);
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
      more,
      this.quoted.node,
      h("div", "actions", this.submit, this.keep),
    );
    this.form.noValidate = true;
    this.keep.type = "button";
    this.submit.type = "submit";
    this.submit.disabled = true;
    this.listen();
    this.node = h("div", "new", this.form, this.follow.node);
    this.node.setAttribute("data-lm-suppress-shortcuts", "true");
    this.arrange();
  }

  /** What the server offers and allows. */
  offer({ templates, limits }: Root): void {
    if (this.template.control.length) return;
    this.limits = limits;
    for (const name of templates.filter(isShipped)) this.template.control.append(option(name, titleOf(name)));
    void this.offerOwn();
    void this.occasion.offer(this.api);
    const first = templates.includes("text") ? "text" : (templates[0] ?? "");
    this.template.control.value = this.draft.template = first;
    this.arrange();
  }

  /** Offer the user's own templates before those that are shipped. */
  private async offerOwn(): Promise<void> {
    const { items } = await this.api.get<TemplateList>("/templates").catch((): TemplateList => ({ items: [] }));
    const own = items.filter(({ kind, can }) => kind === "own" && can.includes("submit"));
    this.bases.clear();
    for (const { name, based_on } of own) this.bases.set(name, based_on);
    const group = Object.assign(h("optgroup"), { label: "Your templates" });
    group.append(...own.map(({ name, description }) => option(name, description ? `${name}: ${description}` : name)));
    const { control } = this.template;
    control.querySelector("optgroup")?.remove();
    if (own.length) control.prepend(group);
    control.value = this.draft.template;
  }

  /** Save what is chosen as a template of the user's own. */
  private async save(): Promise<void> {
    const name = this.draft.name.trim();
    if (!name) return this.quoted.refuse("The template needs a name: it is that of the batch, above.");
    try {
      const { template: based_on, params = {}, priority = null, start_at = null, notify = null } = this.occasion.of(requestOf(this.draft));
      const body: Template = { based_on, params, priority, start_at, notify };
      await this.api.put<Template>(`/templates/${encodeURIComponent(name)}`, body, { "If-None-Match": "*" });
      this.quoted.wait(`Saved: ${name} is among your templates.`);
      await this.offerOwn();
    } catch (error) {
      const isThere = error instanceof Refused && error.status === 412;
      this.quoted.refuse(isThere ? `There is a template ${name} already: choose another name, or delete that one.` : words(error));
    }
  }

  /** The server cannot be asked. */
  refuse(words: string): void {
    this.quoted.refuse(words);
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
    this.template.control.addEventListener("change", () => this.arrange());
    this.from.control.addEventListener("change", () => void this.fill());
    this.keep.addEventListener("click", () => void this.save());
    this.image.control.addEventListener("change", () => void this.picture());
    this.table.control.addEventListener("change", () => void this.upload());
  }

  /** Show the fields that the template has. */
  private arrange(): void {
    const base = this.bases.get(this.template.control.value) ?? "";
    const template = base || this.template.control.value;
    const kind = kindOf(template);
    const draws = kind === "prompts" && template !== "text";
    this.table.show(kind === "table");
    this.lines.show(kind !== "table");
    this.lines.rename(kind === "ids" ? "App ids" : "Prompts");
    this.from.show(kind !== "table");
    this.image.show(draws && template !== "text-to-image");
    this.lane.show(kind === "prompts" && !base);
    this.model.show(kind === "prompts" && !base);
    this.horizon.show(kind === "table" && !base);
    this.by.show(kind === "table" && !base);
    this.priority.show(!base);
    this.keep.hidden = base !== "";
    this.typed();
  }

  private typed(): void {
    const { draft } = this;
    draft.template = this.template.control.value;
    draft.base = this.bases.get(draft.template) ?? "";
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
    this.key = ""; // another request: another key
    this.countLines();
    this.submit.disabled = true;
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

  private async quote(): Promise<void> {
    const asked = (this.asked += 1);
    if (!isAskable(this.draft)) return this.quoted.wait("Nothing is reserved or sent before you submit.");
    try {
      const request = this.occasion.of(requestOf(this.draft));
      this.quoted.wait("Reckoning\u2026");
      const quote = await this.api.post<Quote>("/submissions?dry_run=1", request);
      if (asked !== this.asked) return;
      if (this.occasion.isRepeated) await this.foretell();
      if (asked !== this.asked) return;
      const { credits } = quote;
      const isShort = credits !== null && credits.cost > credits.available;
      this.quoted.tell(quote, isShort ? `${figure(credits.cost - credits.available)} credits are missing: grant them from Python, or submit less` : "");
      this.submit.disabled = isShort;
    } catch (error) {
      if (asked === this.asked) this.quoted.refuse(words(error));
    }
  }

  /** See when a schedule of it would come, and what is wrong with that. */
  private async foretell(): Promise<void> {
    const schedule = this.occasion.schedule(this.occasion.of(requestOf(this.draft)));
    this.occasion.told(await this.api.put<Schedule>(`${pathOf(this.draft.name.trim() || "preview")}?dry_run=1`, schedule));
  }

  private async schedule(): Promise<void> {
    const name = this.draft.name.trim();
    if (!name) return this.quoted.refuse("A schedule needs a name, above.");
    try {
      const schedule = this.occasion.schedule(this.occasion.of(requestOf(this.draft)));
      const made = await this.api.put<Schedule>(pathOf(name), schedule, { "If-None-Match": "*" });
      this.quoted.wait(`Scheduled: ${name}${made.next[0] ? `, next ${dayWords(made.next[0])}` : ""}. It stands in the side bar.`);
    } catch (error) {
      const isThere = error instanceof Refused && error.status === 412;
      this.quoted.refuse(isThere ? `There is a schedule ${name} already: choose another name, or delete that one.` : words(error));
    }
  }

  private async send(): Promise<void> {
    if (this.submit.disabled) return;
    if (this.occasion.isRepeated) return this.schedule();
    this.submit.disabled = true;
    attribute(this.submit, "aria-busy", "true");
    // Pressed twice, or sent again after a cut line, it is one submission.
    this.key ||= crypto.getRandomValues(new Uint32Array(4)).join("-");
    try {
      const submission = await this.api.post<Submission>("/submissions", this.occasion.of(requestOf(this.draft)), { "Idempotency-Key": this.key });
      hidden(this.form, true);
      this.follow.show(submission);
    } catch (error) {
      this.quoted.refuse(words(error));
      this.submit.disabled = false;
    }
    attribute(this.submit, "aria-busy", null);
  }

  private again(): void {
    this.key = "";
    hidden(this.form, false);
    this.typed();
    this.template.control.focus();
  }

  private async fill(): Promise<void> {
    const [file] = this.from.control.files ?? [];
    if (!file) return;
    this.lines.control.value = await file.text();
    this.typed();
  }

  private async picture(): Promise<void> {
    const [file] = this.image.control.files ?? [];
    this.draft.image = file ? base64(new Uint8Array(await file.arrayBuffer())) : "";
    this.typed();
  }

  private async upload(): Promise<void> {
    const [file] = this.table.control.files ?? [];
    this.draft.upload = "";
    if (!file) return this.typed();
    this.table.say(`Uploading ${file.name}\u2026`);
    try {
      const type = TABLES[file.name.split(".").at(-1)!.toLowerCase()] ?? (file.type || "text/csv");
      const { id, rows, columns } = await this.api.send<Upload>("/uploads", file, type);
      this.draft.upload = id;
      this.table.say(`${count(rows)} ${rows === 1 ? "row" : "rows"}: ${columns.join(", ")}`);
    } catch (error) {
      this.table.say(words(error), true);
    }
    this.typed();
  }
}

function base64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(binary);
}

