// Log: what happened, newest first. Lines are only ever put on top, so a line once read stays as it is.
import { attribute, focusable, h, hidden, text } from "./dom";
import { time } from "./format";
import { icon, type IconName } from "./icons";
import type { Context, Piece } from "./piece";
import type { Level, LogLine } from "./schema";

/** As many as the store keeps. */
const LINES = 500;
const ICONS: Record<Level, IconName> = { info: "note", good: "completed", warn: "warn", bad: "failed" };

export class LogPiece implements Piece {
  private readonly switches = [this.makeSwitch("Everything", false), this.makeSwitch("Problems", true)];
  private readonly empty = h("p", "empty");
  private readonly list = h("ol", "lines");
  private problems = false;
  /** Number of the newest line that was looked at; -1: draw all anew. */
  private newest = -1;
  readonly node = h("div", "log", h("div", "tools", ...this.switches), this.list, this.empty);

  constructor(private readonly context: Context) {
    focusable(this.list);
    this.list.setAttribute("aria-label", "Log, newest first");
    this.choose(false);
  }

  render(): void {
    const { log } = this.context.store;
    const last = log.at(-1)?.number ?? 0;
    if (last === this.newest) return;
    // Numbers that fall, or a gap, mean that the log began anew.
    if (last < this.newest || (log[0]?.number ?? 0) > this.newest + 1) this.list.replaceChildren();
    const fresh = log.filter((line) => line.number > this.newest || this.list.childElementCount === 0);
    this.list.prepend(...fresh.filter((line) => this.shows(line)).reverse().map(row));
    while (this.list.childElementCount > LINES) this.list.lastElementChild!.remove();
    this.newest = last;
    text(this.empty, this.problems ? "Nothing went wrong." : "Nothing has happened yet.");
    hidden(this.empty, this.list.childElementCount > 0);
  }

  private shows(line: LogLine): boolean {
    return !this.problems || line.level === "warn" || line.level === "bad";
  }

  private makeSwitch(label: string, problems: boolean): HTMLButtonElement {
    const button = h("button", "switch", label);
    button.type = "button";
    button.addEventListener("click", () => {
      this.choose(problems);
      this.context.redraw();
    });
    return button;
  }

  private choose(problems: boolean): void {
    this.problems = problems;
    this.switches.forEach((button, index) => attribute(button, "aria-pressed", String((index === 1) === problems)));
    this.newest = -1;
    this.list.replaceChildren();
  }
}

function row(line: LogLine): HTMLElement {
  const node = h("li", "", h("time", "", time(line.at_s)), icon(ICONS[line.level]), h("span", "", line.text));
  node.setAttribute("data-level", line.level);
  return node;
}
