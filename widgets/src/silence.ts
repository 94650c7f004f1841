// Silence: whether what tells a page of a session is still there, as far as the page can know.
//
//   a word --heard--> [hears] --5 s without another, though it should tell--> "silent" --a word--> [hears]
//   told by the front end: the kernel was restarted, has died, lost the panel --lost--> until a word comes
//
// Rule: only seconds in which the page could hear are counted, those between two ticks that came on time. Of a tab
// that was hidden, or a laptop that slept, nothing is counted: on waking it accuses nobody.
import { time } from "./format";

/** A session that runs is told of each second. */
export const SILENT_S = 5;
/** Ticks come each second: one that took longer was held up, as all that was to be heard was. */
const ON_TIME_S = 2.5;
const HALF_A_DAY_S = 12 * 3600;

export type Teller = "kernel" | "server";
export type Why = "silent" | "restarted" | "dead";

export interface Silence {
  /** Unix time of the last word. */
  heard: number;
  why: Why;
  /** Who is silent. */
  teller: Teller;
}

export class Hearing {
  private unix_s = 0;
  /** When there was word, of the clock that never jumps. */
  at_s = -Infinity;
  private counted_s = 0;
  private tickAt_s: number | null = null;
  private lostBy: Why | null = null;

  constructor(private readonly teller: Teller) {}

  /** Seconds for which it was listened without a word. */
  quiet_s(now_s: number): number {
    if (this.tickAt_s === null) return this.counted_s;
    const since_s = now_s - Math.max(this.tickAt_s, this.at_s);
    return this.counted_s + (since_s > 0 && since_s <= ON_TIME_S ? since_s : 0);
  }

  /** Take in that there was word: at `now_s` of the clock that never jumps, and at `unix_s` of this machine's. */
  heard(now_s: number, unix_s: number): void {
    this.at_s = now_s;
    this.unix_s = unix_s;
    this.counted_s = 0;
    this.lostBy = null;
  }

  /** Count what has passed; called each second while the page is told, as far as the browser lets us. */
  tick(now_s: number): void {
    const isLate = this.tickAt_s !== null && now_s - this.tickAt_s > ON_TIME_S;
    this.counted_s = isLate ? 0 : this.quiet_s(now_s);
    this.tickAt_s = now_s;
  }

  lost(why: Why): void {
    this.lostBy = why;
  }

  silence(now_s: number, isExpected: boolean): Silence | null {
    const why = this.lostBy ?? (isExpected && this.quiet_s(now_s) >= SILENT_S ? "silent" : null);
    return why && { heard: this.unix_s, why, teller: this.teller };
  }
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** `kernel gone, last heard 16:20:03`. */
export function goneWords({ heard, teller }: Silence, unix_s: number): string {
  const day = unix_s - heard > HALF_A_DAY_S ? ` on ${DAY.format(heard * 1000)}` : "";
  return `${teller} gone, last heard ${time(heard)}${day}`;
}
