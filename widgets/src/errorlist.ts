// Errorlist: what failed, as lines: each message that is told of several items, and its items beneath it.
//
// Rule: the kernel has the list, and this has the pages of it that were looked at. All pages are of one version: one
// of another begins the list anew. An item that is alone with its message is a line of its own, without a heading.
import { count } from "./format";
import type { ErrorCount, Errors, RecordedItem } from "./schema";

/** As many as are asked for at once. */
export const PAGE = 100;
/** As long as everything fits into one look, every message is open; else they are the overview. */
const OPEN_LINES = 12;

/** A group of items, in the order of the list. */
interface Part {
  group: ErrorCount;
  /** The place of its first item in the list. */
  first: number;
  /** Its first line. */
  line: number;
  lines: number;
  open: boolean;
}

export interface MessageLine {
  kind: "message";
  group: ErrorCount;
  open: boolean;
}

export interface ItemLine {
  kind: "item";
  /** Its place in the list. */
  at: number;
  /** Undefined until its page has come. */
  item: RecordedItem | undefined;
  /** Whether it is under its message. */
  within: boolean;
}

export type Line = MessageLine | ItemLine;

export class ErrorList {
  version = 0;
  search = "";
  /** Items that match, and items that failed in all. */
  total = 0;
  of = 0;
  /** Lines that are shown. */
  length = 0;
  private parts: Part[] = [];
  private told = 0;
  private readonly pages = new Map<number, RecordedItem>();
  /** By group: what the user opened or closed stays so, whatever comes. */
  private readonly chosen = new Map<string, boolean>();

  /** Whether there is a list, even of nothing. */
  get isKnown(): boolean {
    return this.version > 0;
  }

  get messages(): number {
    return this.told;
  }

  /** Lines if all were open: the room it may need. */
  get most(): number {
    return this.parts.reduce((sum, part) => sum + linesOf(part.group, true), 0);
  }

  /** Take in a page. One of another list is taken only when it is that one's first; return whether it was. */
  take(answer: Errors): boolean {
    const isFirst = answer.offset === 0 && (answer.groups.length > 0 || answer.total === 0);
    if (answer.version !== this.version && !isFirst) return false;
    if (isFirst && (answer.version !== this.version || answer.search !== this.search)) this.begin(answer);
    answer.items.forEach((item, index) => this.pages.set(answer.offset + index, item));
    return true;
  }

  private begin({ version, search, total, of, groups, more_groups }: Errors): void {
    Object.assign(this, { version, search, total, of });
    this.pages.clear();
    this.told = groups.length + more_groups;
    const told = groups.reduce((sum, group) => sum + group.count, 0);
    const others = more_groups === 1 ? "1 other message" : `${count(more_groups)} other messages`;
    const rest: ErrorCount[] = more_groups ? [{ message: others, status: "failed", scope: "", count: total - told }] : [];
    let first = 0;
    this.parts = [...groups, ...rest].map((group) => {
      const part = { group, first, line: 0, lines: 0, open: false };
      first += group.count;
      return part;
    });
    const open = this.most <= OPEN_LINES || this.parts.length === 1;
    for (const part of this.parts) part.open = this.chosen.get(nameOf(part.group)) ?? open;
    this.place();
  }

  /** Open or close a message; return its line. */
  turn(name: string, open?: boolean): number {
    const part = this.parts.find(({ group }) => nameOf(group) === name);
    if (!part) return -1;
    part.open = open ?? !part.open;
    this.chosen.set(name, part.open);
    this.place();
    return part.line;
  }

  at(line: number): Line | undefined {
    const part = this.partAt(line);
    if (!part) return undefined;
    const { group, first, open } = part;
    const headed = group.count > 1;
    if (headed && line === part.line) return { kind: "message", group, open };
    const at = first + line - part.line - (headed ? 1 : 0);
    return { kind: "item", at, item: this.pages.get(at), within: headed };
  }

  /** The message line above a line, or -1. */
  headOf(line: number): number {
    const part = this.partAt(line);
    return part && part.group.count > 1 ? part.line : -1;
  }

  /** The line of the item at a place of the list, or -1 where it is not shown. */
  lineOf(at: number): number {
    const part = this.parts.find(({ first, group }) => at >= first && at < first + group.count);
    if (!part) return -1;
    if (part.group.count === 1) return part.line;
    return part.open ? part.line + 1 + at - part.first : -1;
  }

  /** The line of an item that was looked at, or -1. */
  lineWith(key: string | undefined): number {
    for (const [at, known] of this.pages) if (known.key === key) return this.lineOf(at);
    return -1;
  }

  /** The first place of the page that an item's place is on, if that page has to be asked for. */
  missing(at: number): number | null {
    return at >= this.total || this.pages.has(at) ? null : at - (at % PAGE);
  }

  private partAt(line: number): Part | undefined {
    let [low, high] = [0, this.parts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.parts[middle]!.line <= line) low = middle;
      else high = middle - 1;
    }
    const part = this.parts[low];
    return part && line >= 0 && line < this.length ? part : undefined;
  }

  private place(): void {
    let line = 0;
    for (const part of this.parts) {
      part.line = line;
      part.lines = linesOf(part.group, part.open);
      line += part.lines;
    }
    this.length = line;
  }
}

/** What tells a group from others: the same message may be that of a failure and of a timeout, or of a service. */
export function nameOf({ message, status, scope }: ErrorCount): string {
  return `${status} ${scope} ${message}`;
}

function linesOf(group: ErrorCount, open: boolean): number {
  return group.count === 1 ? 1 : open ? group.count + 1 : 1;
}
