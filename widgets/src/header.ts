// Header: the session's name, its state in a word, why it waits, and the buttons that make sense now.
import { copy } from "./csv";
import { attribute, clipped, h, hidden, text } from "./dom";
import { clock, countedDown } from "./format";
import { icon, setIcon } from "./icons";
import type { CommandName, Head } from "./schema";
import { shownState, stateWords } from "./selection";
import { goneWords, type Silence, type Why } from "./silence";
import { ended } from "./store";

const LABELS: [CommandName, string][] = [
  ["start_now", "Start now"],
  ["pause", "Pause"],
  ["resume", "Resume"],
  ["lift", "Lift"],
  ["retry_failed", "Retry failed"],
  ["cancel", "Cancel"],
];

/** What a person can do about it. */
const STEPS: Record<Why, string> = {
  silent: "if it stays away, run its cell again, or",
  restarted: "it was restarted: run its cell again, or",
  dead: "run its cell again, or",
};
const SAID_MS = 1600;

/** What is known, as the header says it. */
export interface Known {
  head: Head;
  passed_s: number;
  gone: Silence | null;
  unix_s: number;
}

export class Header {
  private readonly name = h("h2", "name");
  private readonly icon = icon();
  private readonly word = h("span");
  private readonly state = h("span", "state", this.icon, this.word);
  private readonly place = h("span", "place");
  private readonly waiting = h("span", "waiting");
  private readonly said = h("span", "said");
  private readonly buttons = new Map<CommandName, HTMLButtonElement>();
  private readonly row = h("div", "buttons");
  private readonly reattach = new Reattach();
  private readonly spoken = h("span", "spoken");
  readonly node = h(
    "header",
    "",
    this.name,
    h("div", "now", this.state, this.place, this.waiting, this.said, this.spoken),
    this.row,
    this.reattach.node,
  );

  constructor(press: (name: CommandName) => void) {
    this.said.setAttribute("role", "status");
    this.spoken.setAttribute("role", "status");
    for (const [name, label] of LABELS) {
      const button = h("button", name, icon(name), h("span", "label", label));
      button.type = "button";
      button.setAttribute("aria-label", label);
      button.title = label;
      button.addEventListener("click", () => press(name));
      this.buttons.set(name, button);
      this.row.append(button);
    }
  }

  /** Say what became of a press; it stands in the place of the waiting sentence. */
  say(words: string): void {
    clipped(this.said, words);
    hidden(this.waiting, words !== "");
  }

  patch({ head, passed_s, gone, unix_s }: Known, isPending: (name: CommandName) => boolean): void {
    const over = ended(head.state);
    const words = gone ? goneWords(gone, unix_s) : "";
    const is = gone && !over ? "interrupted" : shownState(head);
    clipped(this.name, head.name);
    attribute(this.state, "data-is", is);
    setIcon(this.icon, is);
    // How a session has ended is known for good; that one runs is not.
    text(this.word, gone && !over ? words : stateWords(head));
    clipped(this.place, gone && !over ? "" : head.where);
    clipped(this.waiting, gone || over ? (over ? words : "") : waiting(head, passed_s));
    text(this.spoken, words);
    attribute(this.buttons.get("lift")!, "title", `Ask the service again now: ${head.cool_why}`);
    this.patchButtons(gone ? [] : head.can, isPending);
    hidden(this.row, this.reattach.patch(gone, head.reopen));
  }

  private patchButtons(can: CommandName[], isPending: (name: CommandName) => boolean): void {
    const focused = [...this.buttons.values()].find((button) => button.matches(":focus"));
    for (const [name, button] of this.buttons) {
      hidden(button, !can.includes(name));
      attribute(button, "aria-busy", isPending(name) ? "true" : null);
    }
    // Pause gives way to Resume under the keyboard's focus.
    if (focused?.hidden) [...this.buttons.values()].find((button) => !button.hidden)?.focus();
  }
}

/** How to come by the session again: what stands in the place of buttons that nobody would hear. */
class Reattach {
  private readonly step = h("span", "step");
  private readonly sign = icon("copy");
  private readonly code = h("code");
  private readonly button = h("button", "reopen", this.sign, this.code);
  private readonly said = h("span", "spoken");
  private reopen = "";
  readonly node = h("div", "reattach", this.step, this.button, this.said);

  constructor() {
    this.button.type = "button";
    this.said.setAttribute("role", "status");
    this.button.addEventListener("click", () => void this.copy());
  }

  /** Return whether it stands there. */
  patch(gone: Silence | null, reopen: string): boolean {
    const isOffered = gone?.teller === "kernel";
    hidden(this.node, !isOffered);
    if (!isOffered) return false;
    this.reopen = reopen;
    const step = STEPS[gone.why];
    text(this.step, reopen ? step : step.replace(/, or$/, ""));
    text(this.code, reopen);
    attribute(this.button, "title", `Copy: it shows what is recorded, in any kernel\n${lines(reopen)}`);
    attribute(this.button, "aria-label", `Copy ${reopen}`);
    hidden(this.button, reopen === "");
    return true;
  }

  private async copy(): Promise<void> {
    const copied = await copy(lines(this.reopen));
    text(this.said, copied ? "copied" : "the browser refused to copy");
    setIcon(this.sign, copied ? "completed" : "failed");
    setTimeout(() => setIcon(this.sign, "copy"), SAID_MS);
  }
}

function lines(reopen: string): string {
  return `from ipybatch import BatchSession\n${reopen}`;
}

function waiting(head: Head, passed_s: number): string {
  if (head.waiting) return countedDown(head.waiting, passed_s);
  const left_s = head.cool_down_s - passed_s;
  return left_s > 0 ? `the service asked us to wait ${clock(Math.ceil(left_s))}` : head.reason;
}
