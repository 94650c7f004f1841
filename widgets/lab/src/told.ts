// Told: what a list says of a session, in the panel's own words.
import { clock, count, countedDown, duration, remaining, usd } from "../../src/format";
import { done, ended, tried } from "../../src/store";
import type { SessionItem } from "../../src/wire";
import type { Settings } from "./settings";

/** `63 %`; "" where nobody knows how many there will be. */
export function percent({ counts }: SessionItem): string {
  if (!counts.total) return "";
  const share = done(counts) / counts.total;
  // 100 % is said of what is all done, and of nothing else.
  return `${share >= 1 ? 100 : Math.min(99, Math.floor(100 * share))} %`;
}

/** `315 of 500`. */
export function ofAll({ counts }: SessionItem): string {
  return counts.total === null ? `${count(tried(counts))} done` : `${count(tried(counts))} of ${count(counts.total)}`;
}

/** `3 failed`; "" for none. */
export function failedWords({ counts }: SessionItem): string {
  const failed = counts.failed + counts.timeout;
  return failed ? `${count(failed)} failed` : "";
}

/** `about 2 m left`. */
export function leftWords(item: SessionItem, passed_s: number): string {
  if (item.eta_s === null || item.state !== "running") return "";
  return `${remaining(null, Math.max(0, item.eta_s - passed_s))} left`;
}

/** How long it has run: `1 m 48 s`. */
export function elapsedWords(item: SessionItem, passed_s: number): string {
  if (!item.started) return "";
  return ended(item.state) ? duration(item.seconds) : clock(item.seconds + (item.state === "running" ? passed_s : 0));
}

export function costWords({ usd: spent }: SessionItem): string {
  return spent === null ? "" : usd(spent);
}

/** A wait that is over before its sentence is read; limits that space starts make one after the other. */
const BRIEF_S = 5;

/** Why nothing can start now, counted down; "" when something can, or will in a moment. */
export function waitingWords(item: SessionItem, passed_s: number): string {
  const [, wait = Infinity] = /(?:\bin |: )(\d+) s\b/.exec(item.waiting) ?? [];
  if (Number(wait) < BRIEF_S) return "";
  return ended(item.state) ? "" : countedDown(item.waiting, passed_s);
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const YEAR = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const WHOLE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** When: the time of day today, else the day: `14:03`, `28 Nov`, `28 Nov 2025`. */
export function whenWords(iso: string, now = new Date()): string {
  const then = new Date(iso);
  if (Number.isNaN(then.getTime())) return "";
  if (then.toDateString() === now.toDateString()) return CLOCK.format(then);
  return then.getFullYear() === now.getFullYear() ? DAY.format(then) : YEAR.format(then);
}

/** A day and a time of day: `22:00` today, `tomorrow 22:00`, `28 Nov 22:00`. */
export function dayWords(iso: string, now = new Date()): string {
  const then = new Date(iso);
  if (Number.isNaN(then.getTime())) return "";
  const tomorrow = new Date(now.getFullYear(), now.getMonth(), now.getDate() + 1);
  const day = then.toDateString() === now.toDateString() ? "" : then.toDateString() === tomorrow.toDateString() ? "tomorrow" : whenWords(iso, now);
  return `${day} ${CLOCK.format(then)}`.trim();
}

/** Where this browser's clocks are: all times are told by these. */
export function ownZone(): string {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
}

/** Whether a zone is that of this browser, by whichever of its names. */
export function isOwnZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone === ownZone();
  } catch {
    return false; // this browser does not know it
  }
}

export function wholeTime(iso: string): string {
  const then = new Date(iso);
  return Number.isNaN(then.getTime()) ? "" : WHOLE.format(then);
}

/** `wishlist completed: 497 of 500, 3 failed, 12 m 04 s`. */
export function endWords(item: SessionItem): string {
  const parts = [ofAll(item), failedWords(item), elapsedWords(item, 0), item.state === "completed" ? "" : item.reason];
  return `${item.name} ${item.state.replace("_", " ")}: ${parts.filter(Boolean).join(", ")}`;
}

/** The name of a notebook without its folders. */
export function baseName(path: string): string {
  return path.split("/").at(-1) ?? path;
}

/** `2 sessions, 63 %`: of all items that are known to be in all live sessions. */
export function statusWords(live: SessionItem[]): string {
  if (live.length === 0) return "";
  const known = live.filter(({ counts }) => counts.total);
  const all = known.reduce((sum, { counts }) => sum + counts.total!, 0);
  const ready = known.reduce((sum, { counts }) => sum + Math.min(done(counts), counts.total!), 0);
  const words = live.length === 1 ? "1 session" : `${live.length} sessions`;
  return all ? `${words}, ${Math.min(99, Math.floor((100 * ready) / all))} %` : words;
}

/** Whether its user is told that it has ended. */
export function isTold(item: SessionItem, { notify, notifyAfterSeconds }: Settings, wasCancelledHere: boolean): boolean {
  if (notify === "none" || item.seconds < notifyAfterSeconds) return false;
  if (item.state === "cancelled") return !wasCancelledHere && notify === "all";
  return notify === "all" || item.state !== "completed" || hasFailures(item);
}

export function hasFailures({ counts }: SessionItem): boolean {
  return counts.failed + counts.timeout > 0;
}
