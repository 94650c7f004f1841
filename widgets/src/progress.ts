// Progress: the bar in its shares, and one line of truth under it.
import { Bar, ofTotal } from "./bar";
import { attribute, h, hidden, text } from "./dom";
import { clock, count, duration, remaining } from "./format";
import type { Counts, Head } from "./schema";
import { ended, tried } from "./store";

/** A screen reader hears of a tenth of the way, of the first failure and of a new state; of an unknown length, each minute. */
const SPOKEN_EVERY_S = 5;
const PARTS = 10;
const UNKNOWN_EVERY_S = 60;

/** Those that stand in the line only when there are any come last, so the others keep their places. */
const WORDS: [keyof Omit<Counts, "total" | "pending">, string, boolean][] = [
  ["completed", "completed", true],
  ["failed", "failed", true],
  ["running", "running", true],
  ["timeout", "timed out", false],
  ["cancelled", "cancelled", false],
  ["skipped", "skipped", false],
];

export class Progress {
  private readonly bar = new Bar();
  private readonly done = h("b");
  private readonly total = h("span");
  private readonly counts: Figure[];
  private readonly elapsed = h("span", "elapsed");
  private readonly left = h("b");
  private readonly about = h("span");
  private readonly of = h("span");
  private readonly guess = h("span", "left", this.about, this.left, this.of);
  private readonly spoken = h("span", "spoken");
  private spokenAt_s = -Infinity;
  private spokenState = "";
  private spokenStep = "";
  readonly node: HTMLElement;

  /** `openErrors` is called when the number of those that failed is pressed. */
  constructor(openErrors?: () => void) {
    this.counts = WORDS.map(([name]) => new Figure(name, name === "failed" || name === "timeout" ? openErrors : undefined));
    this.spoken.setAttribute("aria-live", "polite");
    const figures = this.counts.map((figure) => figure.node);
    const clocks = h("span", "clocks", this.elapsed, this.guess);
    const line = h("div", "line", h("span", "done", this.done, this.total), ...figures, clocks);
    this.node = h("div", "progress", this.bar.node, line, this.spoken);
  }

  patch(head: Head, passed_s: number, now_s: number, isGone = false): void {
    const going_s = ended(head.state) || head.state === "planned" ? 0 : passed_s;
    this.bar.patch(head.name, head.state, head.counts);
    this.patchCounts(head.counts);
    text(this.elapsed, elapsedWords(head, going_s));
    const left = isGone ? "" : left_words(head, head.state === "running" ? passed_s : 0); // nobody knows
    text(this.left, left);
    text(this.about, /^at most/.test(left) ? "" : "about ");
    text(this.of, head.state === "planned" ? " in all" : " left");
    hidden(this.guess, left === "");
    if (!isGone) this.speak(head, left, now_s);
  }

  private patchCounts(counts: Counts): void {
    const most = count(counts.total ?? 0);
    text(this.done, count(tried(counts)));
    room(this.done.parentElement!, most, this.done.textContent);
    text(this.total, counts.total === null ? " done, more to come" : ` of ${count(counts.total)}`);
    WORDS.forEach(([name, word, always], index) => this.counts[index]!.patch(counts[name], word, always));
    // What comes after it has a button in it, which must not move away.
    room(this.counts[0]!.node, most, count(counts.completed));
  }

  private speak(head: Head, left: string, now_s: number): void {
    const failed = head.counts.failed + head.counts.timeout;
    const step = `${stepOf(head)} ${failed > 0}`;
    const isSame = head.state === this.spokenState;
    if (isSame && (step === this.spokenStep || now_s - this.spokenAt_s < SPOKEN_EVERY_S)) return;
    this.spokenAt_s = now_s;
    this.spokenState = head.state;
    this.spokenStep = step;
    const parts = [head.state.replace("_", " "), ofTotal(head.counts), failed ? `${count(failed)} failed` : ""];
    text(this.spoken, [...parts, left && `${left} left`].filter(Boolean).join(", "));
  }
}

/** How far it is, in steps worth a word. */
function stepOf({ counts, elapsed_s }: Head): number {
  if (counts.total === null) return Math.floor(elapsed_s / UNKNOWN_EVERY_S);
  return Math.floor((PARTS * tried(counts)) / Math.max(1, counts.total));
}

class Figure {
  private readonly value = h("b");
  private readonly word = h("span");
  readonly node: HTMLElement;

  constructor(name: string, private readonly open?: () => void) {
    this.node = open ? this.makeButton(name, open) : h("span", `figure ${name}`, this.value, this.word);
  }

  private makeButton(name: string, open: () => void): HTMLButtonElement {
    const button = h("button", `figure ${name}`, this.value, this.word);
    button.type = "button";
    button.addEventListener("click", open);
    return button;
  }

  patch(value: number, word: string, always: boolean): void {
    text(this.value, count(value));
    text(this.word, ` ${word}`);
    attribute(this.node, "data-none", value ? null : "");
    hidden(this.node, !always && value === 0);
    if (!this.open) return;
    attribute(this.node, "disabled", value ? null : "");
    attribute(this.node, "title", value ? "Show what failed" : null);
  }
}

/** Keep room behind a figure for as many digits as it may grow to. */
function room(node: HTMLElement, most: string, figure: string): void {
  attribute(node, "data-room", most.slice(0, Math.max(0, most.length - figure.length)) || null);
}

/** `48 s elapsed`; at the end `took 48.3 s`, or `ran` where it did not come to all. */
function elapsedWords({ state, elapsed_s }: Head, going_s: number): string {
  if (elapsed_s + going_s === 0) return "";
  if (ended(state)) return `${state === "completed" ? "took" : "ran"} ${duration(elapsed_s)}`;
  return `${clock(elapsed_s + going_s)} elapsed`;
}

function left_words(head: Head, passed_s: number): string {
  if (head.eta_high_s === null || ended(head.state)) return "";
  const low_s = (head.eta_low_s ?? head.eta_high_s) - passed_s;
  return remaining(Math.max(0, low_s), Math.max(0, head.eta_high_s - passed_s));
}
