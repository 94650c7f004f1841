// Header: the session's name, its state in a word, why it waits, and the buttons that make sense now.
import { attribute, clipped, h, hidden, text } from "./dom";
import { clock, countedDown } from "./format";
import { icon, setIcon } from "./icons";
import type { CommandName, Head } from "./schema";
import { ended } from "./store";

const LABELS: [CommandName, string][] = [
  ["pause", "Pause"],
  ["resume", "Resume"],
  ["lift", "Lift"],
  ["retry_failed", "Retry failed"],
  ["cancel", "Cancel"],
];

export class Header {
  private readonly name = h("h3", "name");
  private readonly icon = icon();
  private readonly word = h("span");
  private readonly state = h("span", "state", this.icon, this.word);
  private readonly waiting = h("span", "waiting");
  private readonly said = h("span", "said");
  private readonly buttons = new Map<CommandName, HTMLButtonElement>();
  private readonly row = h("div", "buttons");
  readonly node = h("header", "", this.name, h("div", "now", this.state, this.waiting, this.said), this.row);

  constructor(press: (name: CommandName) => void) {
    this.said.setAttribute("role", "status");
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

  patch(head: Head, passed_s: number, isPending: (name: CommandName) => boolean): void {
    clipped(this.name, head.name);
    attribute(this.state, "data-is", head.state);
    setIcon(this.icon, head.state);
    text(this.word, `${head.state.replace("_", " ")} ${head.where}`.trim());
    clipped(this.waiting, ended(head.state) ? "" : waiting(head, passed_s));
    attribute(this.buttons.get("lift")!, "title", `Ask the service again now: ${head.cool_why}`);
    this.patchButtons(head.can, isPending);
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

function waiting(head: Head, passed_s: number): string {
  if (head.waiting) return countedDown(head.waiting, passed_s);
  const left_s = head.cool_down_s - passed_s;
  return left_s > 0 ? `the service asked us to wait ${clock(Math.ceil(left_s))}` : head.reason;
}
