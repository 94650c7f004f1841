// Sessions: what is known of the user's sessions.
//
// Rule: what an event says is newer than the answer to a question that was asked before it.
//
//   GET /sessions --page--> known <--change-- event        known --filter--> live, past
import { ended } from "../../src/store";
import type { Change, Root, Schedule, SessionItem, SessionPage, Submission, TemplateItem } from "../../src/wire";

/** A session as it was heard of at `at_s`, by a clock that never jumps. */
export interface Entry {
  item: SessionItem;
  at_s: number;
}

export interface Filter {
  /** Part of a name, in small letters. */
  name: string;
  state: string;
}

export type Health = "loading" | "ready" | "gone" | "missing" | "refused";

export class Sessions {
  readonly known = new Map<string, Entry>();
  root: Root | null = null;
  health: Health = "loading";
  /** Why nothing is shown, or what is shown may be old. */
  trouble = "";
  /** What is wrong with journals that cannot be read. */
  unread: string[] = [];
  /** Submissions that wait to begin. */
  queue: Submission[] = [];
  /** What is submitted again and again. */
  schedules: Schedule[] = [];
  /** Templates of the user's own. */
  templates: TemplateItem[] = [];
  filter: Filter = { name: "", state: "" };
  /** Where the page after those that are known begins. */
  next: string | null = null;
  /** Whether the first page of this filter has come. */
  isListed = false;
  /** Of the oldest session of the pages so far; those that are older have gaps between them. */
  private floor = "";
  private readonly changes = new Set<() => void>();
  private readonly endings = new Set<(item: SessionItem) => void>();
  /** Ids that events told of since a question was asked. */
  private told: Set<string> | null = null;

  /** Call `listener` after every change; returns what ends that. */
  onChange(listener: () => void): () => void {
    this.changes.add(listener);
    return () => this.changes.delete(listener);
  }

  /** Call `listener` when a session that was live has ended. */
  onEnd(listener: (item: SessionItem) => void): () => void {
    this.endings.add(listener);
    return () => this.endings.delete(listener);
  }

  emit(): void {
    for (const listener of this.changes) listener();
  }

  get(id: string): SessionItem | undefined {
    return this.known.get(id)?.item;
  }

  /** All that are live, whatever is filtered; the latest first. */
  get live(): Entry[] {
    return this.sorted(({ item }) => !ended(item.state));
  }

  get shownLive(): Entry[] {
    return this.live.filter(({ item }) => this.matches(item));
  }

  get shownPast(): Entry[] {
    return this.sorted(({ item }) => ended(item.state) && item.started >= this.floor && this.matches(item));
  }

  /** Those that wait, the next one first; one whose session was heard of since then has begun. */
  get shownQueue(): { item: Submission }[] {
    const { name, state } = this.filter;
    if (state !== "") return [];
    const begun = new Set(this.live.map(({ item }) => item.submission));
    const waiting = this.queue.filter((item) => !begun.has(item.id) && item.name.toLowerCase().includes(name));
    const rank = ({ start_at, waits_for }: Submission): string => `${start_at ?? ""} ${String(waits_for ?? 0).padStart(9, "0")}`;
    return waiting.sort((a, b) => (rank(a) < rank(b) ? -1 : 1)).map((item) => ({ item }));
  }

  /** Schedules, the next one due first. */
  get shownSchedules(): { item: { id: string; schedule: Schedule } }[] {
    const { name, state } = this.filter;
    const wanted = state === "" ? this.schedules.filter((one) => one.name.toLowerCase().includes(name)) : [];
    const rank = ({ next }: Schedule): string => next[0] ?? "~";
    return wanted.sort((a, b) => (rank(a) < rank(b) ? -1 : 1)).map((schedule) => ({ item: { id: `schedule ${schedule.name}`, schedule } }));
  }

  /** Templates of the user's own, by name. */
  get shownTemplates(): { item: { id: string; template: TemplateItem } }[] {
    const { name, state } = this.filter;
    const wanted = state === "" ? this.templates.filter((one) => one.name.toLowerCase().includes(name)) : [];
    return wanted.map((template) => ({ item: { id: `template ${template.name}`, template } }));
  }

  /** A question is about to be asked. */
  asking(): void {
    this.told = new Set();
  }

  /** Fold a page that was asked for; the first replaces what is not there any more. */
  page(page: SessionPage, isFirst: boolean, now_s: number): void {
    const oldest = page.items.at(-1)?.started ?? "";
    if (isFirst) {
      const listed = new Set(page.items.map((item) => item.id));
      const within = ({ item }: Entry): boolean => this.matches(item) && (page.next === null || item.started > oldest);
      for (const [id, entry] of [...this.known]) if (!listed.has(id) && !this.told?.has(id) && within(entry)) this.known.delete(id);
    }
    this.floor = page.next === null ? "" : oldest;
    this.next = page.next;
    this.unread = page.unread;
    this.isListed = true;
    for (const item of page.items) if (!this.told?.has(item.id)) this.put(item, now_s);
  }

  /** Fold live sessions that may be older than the first page. */
  lived(items: SessionItem[], now_s: number): void {
    for (const item of items) if (!this.told?.has(item.id)) this.put(item, now_s);
  }

  /** Ids of those that are known as live, and were not among those that are. */
  missed(items: SessionItem[]): string[] {
    const listed = new Set(items.map((item) => item.id));
    return this.live.map(({ item }) => item.id).filter((id) => !listed.has(id) && !this.told?.has(id));
  }

  /** Fold one that was asked for by itself; null for one that is not there any more. */
  settle(id: string, item: SessionItem | null, now_s: number): void {
    if (this.told?.has(id)) return;
    if (item) this.put(item, now_s);
    else this.known.delete(id);
  }

  change(change: Omit<Change, "schedules" | "submissions" | "templates">, now_s: number): void {
    for (const id of change.removed) {
      this.known.delete(id);
      this.told?.add(id);
    }
    for (const item of change.items) {
      this.put(item, now_s);
      this.told?.add(item.id);
    }
  }

  /** Look for others: what comes next is the first page of that. */
  search(filter: Filter): void {
    this.filter = filter;
    this.next = null;
    this.isListed = false;
  }

  private put(item: SessionItem, now_s: number): void {
    const before = this.known.get(item.id)?.item;
    this.known.set(item.id, { item, at_s: now_s });
    if (before && !ended(before.state) && ended(item.state)) for (const listener of this.endings) listener(item);
  }

  private matches({ name, state }: SessionItem): boolean {
    const wanted = this.filter;
    return name.toLowerCase().includes(wanted.name) && (wanted.state === "" || wanted.state === state);
  }

  private sorted(wanted: (entry: Entry) => boolean): Entry[] {
    const entries = [...this.known.values()].filter(wanted);
    return entries.sort((a, b) => (a.item.started < b.item.started ? 1 : a.item.started > b.item.started ? -1 : a.item.id < b.item.id ? 1 : -1));
  }
}
