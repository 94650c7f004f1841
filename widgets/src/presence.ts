// Presence: how a page tells the kernel that it shows a view, so that it is told of the session, and nobody else is.
//
//   seen       --Hello--> answered by a whole update        out of sight, or closed --Bye-->
//   each 20 s  --Here---> answered by what is told next     60 s without either: the kernel forgets the page
//
// What is not answered within two seconds is said again, less and less often, and by the second road as well: while
// a cell runs, the kernel may not read the first. Once it has heard a page past its cells, it forgets that page in the
// midst of one too: so each page says Here soon after its Hello, and soon after a cell has begun, until it was.
import type { Beat, Bye, Here, Hello, Resync, Update } from "./schema";

export const EVERY_S = 20;
const ANSWER_S = 2;
const SOON_S = 2;
/** A session that runs is told of each second. */
const QUIET_S = 3;

type Asking = Hello | Here | Resync;

export interface Roads {
  first(message: Asking | Bye): void;
  second(message: Asking): void;
  /** Whether the kernel seems to be running a cell. */
  isBusy(): boolean;
}

export class Presence {
  readonly page = crypto.getRandomValues(new Uint32Array(2)).join("");
  private isSeen = false;
  private asked: Asking["kind"] = "hello";
  private askedAt_s = -Infinity;
  /** How long to wait for the answer of what was asked last; 0: it has come. */
  private wait_s = 0;
  /** Since when the kernel runs a cell; 0: it runs none. */
  private busySince_s = 0;
  /** Whether the kernel hears this page past its cells, and for which of them that was tried. */
  private isAlwaysHeard = false;
  private triedFor_s = -1;

  constructor(private readonly roads: Roads) {}

  get seen(): boolean {
    return this.isSeen;
  }

  /** Come into sight, or go out of it. */
  turn(isSeen: boolean, now_s: number): void {
    if (isSeen === this.isSeen) return;
    this.isSeen = isSeen;
    if (isSeen) this.ask("hello", now_s);
    else this.roads.first({ kind: "bye", view: this.page });
  }

  /** Look each second whether something is to be said; `quiet_s`: how long a session that runs was not heard of. */
  tick(now_s: number, quiet_s: number): void {
    if (!this.isSeen) return;
    this.busySince_s = this.roads.isBusy() ? this.busySince_s || now_s : 0;
    const asked_s = now_s - this.askedAt_s;
    if (this.wait_s) {
      if (asked_s >= this.wait_s) this.askAgain(now_s);
    } else if (quiet_s >= QUIET_S) this.ask("hello", now_s);
    else if (asked_s >= EVERY_S || this.isToTry(now_s)) {
      this.triedFor_s = this.busySince_s;
      this.ask("here", now_s);
    }
  }

  private isToTry(now_s: number): boolean {
    if (this.isAlwaysHeard || this.triedFor_s >= this.busySince_s) return false;
    return now_s - Math.max(this.busySince_s, this.askedAt_s) >= SOON_S;
  }

  /** An update came that was not the next. */
  missed(now_s: number): void {
    if (now_s - this.askedAt_s > ANSWER_S) this.ask("resync", now_s);
  }

  /** What is told names the pages that it answers; a Hello, or a Resync, waits for the whole state. */
  answered(told: Update | Beat): void {
    const isWhole = told.kind === "update" && told.whole;
    if (told.pages.includes(this.page) && (isWhole || this.asked === "here")) this.wait_s = 0;
    this.isAlwaysHeard ||= told.always.includes(this.page);
  }

  private ask(kind: Asking["kind"], now_s: number): void {
    this.asked = kind;
    this.askedAt_s = now_s;
    this.wait_s = ANSWER_S;
    this.roads.first({ kind, view: this.page });
  }

  private askAgain(now_s: number): void {
    const message: Asking = { kind: this.asked, view: this.page };
    this.askedAt_s = now_s;
    this.wait_s = Math.min(EVERY_S, 2 * this.wait_s);
    this.roads.first(message);
    this.roads.second(message);
  }
}
