// Compact: a session in one line, as wide as there is room for: icon, name, bar, figures, what failed, time left.
//
// Rule: its columns have fixed widths, so that those of several sessions under each other line up, and nothing moves
// as figures grow. What does not fit is left out whole, the least needed first; the bar, the name and the buttons stay.
import { Bar } from "./bar";
import { attribute, clipped, h, hidden, ownId, text } from "./dom";
import { clock, countedDown, duration, limit, remaining } from "./format";
import { icon, setIcon, type IconName } from "./icons";
import type { Context, Piece } from "./piece";
import type { CommandName, Counts, Head } from "./schema";
import { shownState, stateWords } from "./selection";
import { goneWords } from "./silence";
import { ended, tried } from "./store";

/** No more than two of them make sense at a time; what comes first gives way last. */
const BUTTONS: [CommandName, string, string][] = [
  ["start_now", "Start", "Start now"],
  ["pause", "Pause", "Pause"],
  ["resume", "Resume", "Resume"],
  ["retry_failed", "Retry", "Retry failed"],
  ["cancel", "Cancel", "Cancel"],
  ["lift", "Lift", "Lift"],
];
const AT_MOST = 2;
/** For the rest of a session of which only a line was told; a kernel that is busy takes longer. */
const PATIENCE_MS = 1000;

export class CompactPiece implements Piece {
  private readonly sign = icon();
  private readonly word = h("span", "word");
  private readonly state = h("span", "sign", this.sign, this.word);
  private readonly name = h("span", "name");
  private readonly bar = new Bar();
  private readonly done = h("b");
  private readonly total = h("span", "total");
  private readonly failures = h("b");
  private readonly failed = h("button", "fails", icon("failed"), this.failures, h("span", "word", " failed"));
  private readonly aside = h("span", "aside");
  private readonly said = h("span", "aside said");
  private readonly buttons = new Map<CommandName, HTMLButtonElement>();
  readonly node: HTMLElement;

  constructor(private readonly context: Context) {
    this.failed.type = "button";
    this.failed.title = "Show what failed";
    this.failed.addEventListener("click", () => context.open("errors"));
    this.said.setAttribute("role", "status");
    for (const each of BUTTONS) this.makeButton(...each);
    const figures = h("span", "figures", this.done, this.total);
    const row = h("span", "buttons", ...this.buttons.values());
    this.node = h("div", "compact", this.state, this.name, this.bar.node, figures, this.failed, this.aside, this.said, row);
  }

  /** Say what became of a press, in the place of the time left. */
  say(words: string): void {
    clipped(this.said, words);
  }

  render(now_s: number): void {
    const { store } = this.context;
    const head = store.head!;
    const passed_s = store.passed_s(now_s);
    const failures = head.counts.failed + head.counts.timeout;
    const silence = ended(head.state) ? null : this.context.gone();
    const state = silence ? "interrupted" : shownState(head);
    const gone = silence ? goneWords(silence, Date.now() / 1000) : "";
    const words = gone || stateWords(head);
    attribute(this.state, "data-is", state);
    attribute(this.state, "title", `${words} ${head.where}`.trim());
    setIcon(this.sign, state);
    text(this.word, words);
    clipped(this.name, head.name);
    this.bar.patch(head.name, head.state, head.counts);
    text(this.done, limit(tried(head.counts)));
    text(this.total, ofTotal(head.counts));
    text(this.failures, limit(failures));
    attribute(this.failed, "data-none", failures ? null : "");
    clipped(this.aside, gone || aside(head, passed_s));
    hidden(this.said, this.said.textContent === "");
    hidden(this.aside, !this.said.hidden);
    this.patchButtons(this.context.gone() ? [] : head.can);
  }

  private makeButton(name: CommandName, label: string, title: string): void {
    const button = h("button", name, icon(name as IconName), h("span", "label", label));
    button.type = "button";
    button.title = title;
    button.setAttribute("aria-label", title);
    button.addEventListener("click", () => this.context.press(name));
    this.buttons.set(name, button);
  }

  private patchButtons(can: readonly CommandName[]): void {
    const focused = [...this.buttons.values()].find((button) => button.matches(":focus"));
    let room = AT_MOST;
    for (const [name, button] of this.buttons) {
      const shown = room > 0 && can.includes(name);
      if (shown) room -= 1;
      hidden(button, !shown);
      attribute(button, "aria-busy", this.context.isPending(name) ? "true" : null);
    }
    // Pause gives way to Resume under the keyboard's focus.
    if (focused?.hidden) [...this.buttons.values()].find((button) => !button.hidden)?.focus();
  }
}

/** The line, and the whole panel under the same button; one of them is seen. */
export class Fold {
  private readonly button = h("button", "fold", icon("open"));
  private readonly body: HTMLElement;
  private readonly line: CompactPiece;
  readonly nodes: HTMLElement[];
  isOpen = false;
  /** It opens when the rest has come: the number of whole updates before it was asked for. */
  private before: number | null = null;

  constructor(private readonly context: Context, pieces: Piece[]) {
    this.line = new CompactPiece(context);
    this.body = h("div", "unfolded", ...pieces.map((piece) => piece.node));
    this.body.id = ownId("unfolded");
    this.body.hidden = true;
    this.button.type = "button";
    this.button.setAttribute("aria-controls", this.body.id);
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => (this.isOpen || this.before !== null ? this.close() : this.open()));
    this.nodes = [this.button, this.line.node, this.body];
  }

  open(): void {
    if (this.isOpen) return;
    this.before = this.context.store.wholes;
    if (this.context.unfolded?.()) setTimeout(() => this.before !== null && this.show(true), PATIENCE_MS);
    else this.show(true);
    this.context.redraw();
  }

  say(words: string): void {
    this.line.say(words);
  }

  render(now_s: number): void {
    const { head, wholes } = this.context.store;
    if (this.before !== null && wholes !== this.before) this.show(true);
    attribute(this.button, "aria-label", `All of ${head!.name}`);
    attribute(this.button, "title", this.isOpen ? "Show one line" : "Show all of it");
    if (!this.isOpen) this.line.render(now_s);
  }

  private close(): void {
    this.show(false);
  }

  private show(isOpen: boolean): void {
    this.before = null;
    if (isOpen === this.isOpen) return;
    this.isOpen = isOpen;
    attribute(this.button, "aria-expanded", String(isOpen));
    hidden(this.line.node, isOpen);
    hidden(this.body, !isOpen);
    this.context.redraw();
  }
}

function ofTotal({ total }: Counts): string {
  return total === null ? " done" : ` of ${limit(total)}`;
}

/** The one thing to know besides: why it waits, how long it will take, how long it took. */
function aside(head: Head, passed_s: number): string {
  if (head.state === "planned") return "not started";
  if (ended(head.state)) {
    const took = head.elapsed_s ? `${head.state === "completed" ? "in" : "after"} ${duration(head.elapsed_s)}` : "";
    return [head.state === "completed" ? "" : head.reason || head.state.replace("_", " "), took].filter(Boolean).join(", ");
  }
  if (head.state === "paused") return "paused";
  if (head.waiting) return countedDown(head.waiting, passed_s);
  if (head.eta_high_s === null) return `for ${clock(head.elapsed_s + passed_s)}`;
  const low_s = Math.max(0, (head.eta_low_s ?? head.eta_high_s) - passed_s);
  return `${remaining(low_s, Math.max(0, head.eta_high_s - passed_s))} left`;
}
