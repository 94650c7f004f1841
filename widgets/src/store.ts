// Store: the state that the updates add up to.
//
// Rule: a whole update replaces everything; a partial one is folded when it is the next in sequence.
// One that comes too late changes nothing; one that comes too early shows what it knows, and is a gap.
import type { BreakerMove, Counts, Errors, Group, Head, Item, LogLine, Mark, RecordedItem, Rows, State, Update } from "./schema";
import { Hearing, type Silence, type Teller, type Why } from "./silence";

const MOVES = 100;
const LINES = 500;

export type Folded = "folded" | "stale" | "gap";

/** Some of the items of a group, as they were when the kernel was asked. */
export interface Detail {
  total: number;
  items: RecordedItem[];
}

export class Store {
  head: Head | null = null;
  groupWord = "";
  /** Titles of the workload's own columns. */
  columns: string[] = [];
  readonly groups = new Map<number, Group>();
  /** The numbers of the groups, ascending: the order of the table. */
  readonly order: number[] = [];
  readonly running = new Set<number>();
  /** Grows with every change of a group: what is derived from all of them is derived anew. */
  version = 0;
  /** Grows with every whole update: groups may be gone. */
  wholes = 0;
  /** The latest items, and the latest that failed, oldest first; every update has them all. */
  items: Item[] = [];
  failures: Item[] = [];
  /** How the counts grew, oldest first. */
  readonly pace: Mark[] = [];
  /** The breaker's moves, oldest first. */
  moves: BreakerMove[] = [];
  /** Lines of the log, oldest first. */
  log: LogLine[] = [];
  /** Items of the groups that were asked for. */
  readonly details = new Map<number, Detail>();
  /** Called with each answer to "errors". */
  readonly onErrors = new Set<(errors: Errors) => void>();
  private seq = 0;
  private headAt_s = 0;
  private readonly hearing: Hearing;

  constructor(teller: Teller = "kernel") {
    this.hearing = new Hearing(teller);
  }

  /** Fold one update, received at `now_s`; a gap asks the caller for a resync. */
  fold(update: Update, now_s: number, unix_s = Date.now() / 1000): Folded {
    this.heard(now_s, unix_s);
    if (!update.whole && update.seq <= this.seq) return "stale";
    const gap = !update.whole && update.seq !== this.seq + 1;
    if (update.whole) this.clear();
    // After a gap the number stays: every later update is a gap too, until a whole one comes.
    if (!gap) this.seq = update.seq;
    this.head = update.head;
    this.headAt_s = now_s;
    this.groupWord = update.group_word;
    if (update.columns.length) this.columns = update.columns;
    for (const group of update.groups) this.put(group);
    this.items = update.items;
    this.failures = update.failures;
    if (!gap) this.foldHistory(update);
    return gap ? "gap" : "folded";
  }

  /** Take in the answer to "items". */
  answer(rows: Rows): void {
    const before = rows.offset ? (this.details.get(rows.group)?.items ?? []) : [];
    this.details.set(rows.group, { total: rows.total, items: [...before.slice(0, rows.offset), ...rows.items] });
  }

  /** Hand on the answer to "errors", which is kept where it is shown. */
  tell(errors: Errors): void {
    for (const hear of this.onErrors) hear(errors);
  }

  /** Seconds since the head was received, what the panel's clocks go on by between updates; up to the last word. */
  passed_s(now_s: number): number {
    return Math.max(0, (this.silence(now_s) ? this.hearing.at_s : now_s) - this.headAt_s);
  }

  /** Take in that who tells of the session is there, whatever it said. */
  heard(now_s: number, unix_s = Date.now() / 1000): void {
    this.hearing.heard(now_s, unix_s);
  }

  /** Count the silence; called each second by a page that is told of the session. */
  listen(now_s: number): void {
    this.hearing.tick(now_s);
  }

  /** Take in that who tells of the session is gone, until there is word again. */
  lost(why: Why): void {
    this.hearing.lost(why);
  }

  /** Seconds without a word from a session that should tell; 0 of one that has nothing to tell. */
  quiet_s(now_s: number): number {
    return this.isLive ? this.hearing.quiet_s(now_s) : 0;
  }

  /** Who is not heard of any more, and since when; null as long as all is well. */
  silence(now_s: number): Silence | null {
    return this.hearing.silence(now_s, this.isLive);
  }

  private get isLive(): boolean {
    return this.head?.state === "running" || this.head?.state === "paused";
  }

  private foldHistory(update: Update): void {
    if (update.pace.length) this.pace.splice(update.pace_at, Infinity, ...update.pace);
    if (update.moves.length) this.moves = [...this.moves, ...update.moves].slice(-MOVES);
    if (update.log.length) this.log = [...this.log, ...update.log].slice(-LINES);
  }

  private clear(): void {
    this.wholes += 1;
    this.groups.clear();
    this.order.length = 0;
    this.running.clear();
    this.items = [];
    this.failures = [];
    this.pace.length = 0;
    this.moves = [];
    this.log = [];
  }

  private put(group: Group): void {
    this.version += 1;
    if (!this.groups.has(group.number)) insert(this.order, group.number);
    this.groups.set(group.number, group);
    if (group.status === "running") this.running.add(group.number);
    else this.running.delete(group.number);
  }
}

/** Numbers nearly always come in order, so the place is looked for from the end. */
function insert(order: number[], number: number): void {
  let at = order.length;
  while (at > 0 && order[at - 1]! > number) at -= 1;
  if (at === order.length) order.push(number);
  else order.splice(at, 0, number);
}

export function ended(state: State): boolean {
  return state !== "planned" && state !== "running" && state !== "paused";
}

/** Items that were tried to the end: what "7 of 13" counts. */
export function tried(counts: Counts): number {
  return counts.completed + counts.failed + counts.timeout;
}

/** Items that have an outcome, those left aside too: how far the bar is filled. */
export function done(counts: Counts): number {
  return tried(counts) + counts.cancelled + counts.skipped;
}
