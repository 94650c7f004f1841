// Remote: a panel that is fed over REST instead of by its kernel.
//
//   event of this session, or a second of silence while it is live --> GET panel (cursor, ETag) --> store --frame--> view
//   press --> POST command        rows of a group --> GET items      what failed --> GET failures
import { h, hidden, text } from "../../src/dom";
import type { Surroundings } from "../../src/piece";
import type { CommandName, Errors, RecordedItem } from "../../src/schema";
import type { Silence } from "../../src/silence";
import { ended, Store } from "../../src/store";
import { View } from "../../src/view";
import type { Item, ItemPage, PanelUpdate, SessionItem, Verb } from "../../src/wire";
import { Gone, query, Refused, words } from "./api";
import type { IBatch } from "./token";

const TICK_MS = 1000;
const PAGE = 100;
const FAILED = ["failed", "timeout"];
const QUESTIONS: ReadonlySet<CommandName> = new Set<CommandName>(["items", "errors"]);
/** Of a session that is live, a little less than the ticks are apart; of one that has ended only events tell. */
const EVERY_S = 0.9;
const RARELY_S = 30;
const GONE = "The server does not answer.";
const DELETED = "This session is not there any more: it was deleted, with what it had recorded.";

export interface Place {
  isSeen(): boolean;
  now_s(): number;
  renamed(name: string): void;
}

export class Remote {
  private readonly store = new Store("server");
  /** By what was asked: a command waits for its answer before it goes again; of questions there may be several. */
  private readonly pending = new Map<string, CommandName>();
  private readonly cursors = new Map<number, string>();
  /** Of each group the keys of what failed: they come first, and once. */
  private readonly failed = new Map<number, Set<string>>();
  private readonly view: View;
  private readonly trouble = h("p", "trouble");
  private readonly skeleton = skeleton();
  readonly node = h("div", "remote", this.trouble, this.skeleton);
  private frame = 0;
  private heard: SessionItem | undefined;
  private askedAt_s = -Infinity;
  private isAsking = false;
  private isOver = false;
  private last: PanelUpdate | null = null;
  private ticker: ReturnType<typeof setInterval> | undefined;
  private forget: ReturnType<typeof setTimeout> | undefined;
  private stopped: () => void = () => undefined;

  constructor(private readonly batch: IBatch, private readonly id: string, private readonly place: Place) {
    const surroundings: Surroundings = {
      store: this.store,
      press: (name, ...values) => {
        if (!this.gone()) void this.press(name, values);
      },
      isPending: (name) => [...this.pending.values()].includes(name),
      say: (text) => this.say(text),
      redraw: () => this.draw(),
      gone: () => this.gone(),
      unix_s: () => this.gone()?.heard ?? Date.now() / 1000,
      retriesAll: true,
    };
    this.view = new View("panel", surroundings);
    this.view.node.hidden = true;
    this.trouble.setAttribute("role", "alert");
    this.trouble.hidden = true;
    this.node.append(this.view.node);
  }

  start(): void {
    this.stopped = this.batch.sessions.onChange(() => this.heardOf());
    this.ticker = setInterval(() => this.tick(), TICK_MS);
    void this.ask();
  }

  stop(): void {
    this.stopped();
    clearInterval(this.ticker);
    clearTimeout(this.forget);
    cancelAnimationFrame(this.frame);
  }

  /** It is seen again. */
  look(): void {
    this.askedAt_s = -Infinity;
    this.tick();
  }

  private heardOf(): void {
    const item = this.batch.sessions.get(this.id);
    if (item === this.heard) return;
    this.heard = item;
    this.askedAt_s = Math.min(this.askedAt_s, this.place.now_s() - EVERY_S / 2);
    this.isOver = false;
    if (this.place.isSeen()) void this.askSoon();
  }

  private async askSoon(): Promise<void> {
    if (this.place.now_s() - this.askedAt_s >= EVERY_S / 2) await this.ask();
  }

  private tick(): void {
    if (!this.place.isSeen()) return;
    const now_s = this.place.now_s();
    if (!this.isOver) this.store.listen(now_s); // of what was deleted nobody tells any more
    // A server that does not answer is asked by the feed, less and less often: one of us is enough.
    if (this.batch.sessions.health === "gone") return this.lost();
    const head = this.store.head;
    const every_s = this.isOver ? Infinity : !head || !ended(head.state) ? EVERY_S : RARELY_S;
    if (now_s - this.askedAt_s >= every_s || (this.gone() && !this.isOver)) void this.ask();
    if (head && !ended(head.state)) this.draw();
  }

  private async ask(): Promise<void> {
    if (this.isAsking) return;
    this.isAsking = true;
    this.askedAt_s = this.place.now_s();
    try {
      const path = `/sessions/${this.id}/panel`;
      const answer = await this.batch.api.get<PanelUpdate>(`${path}${query({ cursor: this.last?.cursor ?? "" })}`, path);
      // Unchanged, it is the same object; what is missed is asked for anew as a whole.
      if (answer !== this.last) this.last = this.fold(answer) ? answer : null;
      this.store.heard(this.place.now_s());
      this.tell("");
    } catch (error) {
      this.isOver = error instanceof Refused && error.status === 404;
      if (error instanceof Gone) {
        this.lost();
        void this.batch.feed.refresh();
      } else {
        this.store.heard(this.place.now_s());
        this.tell(this.isOver ? DELETED : words(error));
      }
    }
    this.isAsking = false;
    this.draw();
  }

  private gone(): Silence | null {
    return this.store.silence(this.place.now_s());
  }

  /** Nobody answered: the header says so, where there is one. */
  private lost(): void {
    const before = this.gone()?.why;
    this.store.lost("silent");
    this.tell(this.store.head ? "" : GONE);
    if (!before) this.draw();
  }

  /** Whether it was next, or whole. */
  private fold({ update }: PanelUpdate): boolean {
    const folded = this.store.fold(update, this.place.now_s());
    this.place.renamed(update.head.name);
    hidden(this.skeleton, true);
    hidden(this.view.node, false);
    return folded === "folded";
  }

  private tell(words: string): void {
    text(this.trouble, words);
    hidden(this.trouble, words === "");
    if (words && !this.store.head) hidden(this.skeleton, true);
  }

  private async press(name: CommandName, values: (string | number)[]): Promise<void> {
    const asked = QUESTIONS.has(name) ? [name, ...values].join("/") : name;
    if (this.pending.has(asked)) return;
    this.pending.set(asked, name);
    this.draw();
    if (name === "items") await this.items(Number(values[0]), Number(values[1]));
    else if (name === "errors") await this.errors(values);
    else if (name !== "open") await this.command(name, values);
    this.pending.delete(asked);
    this.draw();
  }

  private async command(verb: Verb, values: (string | number)[]): Promise<void> {
    const [concurrency, ...rates] = values.map(Number);
    const more = verb === "adjust" && concurrency !== undefined ? { concurrency, rates } : {};
    this.say(await this.batch.verbs.press(this.id, verb, more));
    await this.ask();
  }

  /** Some of a group's items, what failed before the rest; the panel counts them, the API has cursors. */
  private async items(group: number, offset: number): Promise<void> {
    const cursor = offset ? (this.cursors.get(group) ?? null) : null;
    const of = (more: Parameters<typeof query>[0]): Promise<ItemPage> =>
      this.batch.api.get(`/sessions/${this.id}/items${query({ group, limit: PAGE, ...more })}`);
    const { failed = 0, done = 0 } = this.store.groups.get(group) ?? {};
    const wanted = offset || !failed ? [] : FAILED.map((status) => of({ status }));
    try {
      const [page, ...first] = (await Promise.all([of({ cursor }), ...wanted])) as [ItemPage, ...ItemPage[]];
      if (!offset) this.failed.set(group, new Set(first.flatMap(({ items }) => items.map(keyOf))));
      const shown = this.failed.get(group);
      const rest = page.items.filter((item) => !shown?.has(keyOf(item)));
      const items = [...first.flatMap(({ items }) => items), ...rest].map(recorded);
      const total = page.next === null ? offset + items.length : Math.max(offset + items.length + 1, done);
      if (page.next) this.cursors.set(group, page.next);
      this.store.answer({ kind: "rows", id: "", group, offset, total, items });
    } catch (error) {
      this.say(words(error));
    }
  }

  private async errors([offset, search = "", limit, version]: (string | number)[]): Promise<void> {
    const of = { offset: Number(offset), search: decodeURIComponent(String(search)), limit: Number(limit), version: Number(version) };
    try {
      this.store.tell(await this.batch.api.get<Errors>(`/sessions/${this.id}/failures${query(of)}`));
    } catch (error) {
      this.say(words(error));
    }
  }

  private say(words: string): void {
    clearTimeout(this.forget);
    this.view.say(words);
    if (words) this.forget = setTimeout(() => this.say(""), 5000);
    this.draw();
  }

  private draw(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.place.isSeen()) this.view.render(this.place.now_s());
    });
  }
}

function keyOf({ key }: Item): string {
  return typeof key === "string" ? key : JSON.stringify(key);
}

function recorded(item: Item): RecordedItem {
  const { status, attempts, seconds, error, tries, traceback } = item;
  return { key: keyOf(item), status, attempts, seconds, error, tries, traceback };
}

function skeleton(): HTMLElement {
  const node = h("div", "skeleton", ...Array.from({ length: 6 }, () => h("div", "", h("i"), h("i"))));
  node.setAttribute("aria-hidden", "true");
  return node;
}
