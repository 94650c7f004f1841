// Toolbar: what is shown of the table, and what is taken from it.
import { attribute, h, hidden, text } from "./dom";
import { count } from "./format";
import { icon, setIcon, type IconName } from "./icons";
import { filters, STATUSES, statusWord, type Filter, type ShownStatus } from "./selection";

const SAID_MS = 1600;

export interface ToolbarHooks {
  filtered(): void;
  copy(): Promise<boolean>;
  download(): void;
}

interface Chip {
  button: HTMLButtonElement;
  figure: HTMLElement;
}

export class Toolbar {
  private readonly chips = new Map<ShownStatus, Chip>();
  private readonly chosen = new Set<ShownStatus>();
  private readonly row = h("div", "chips");
  private readonly input = h("input", "filter");
  private readonly aside = h("span", "aside");
  private readonly shown = h("span", "shown");
  private readonly spoken = h("span", "spoken");
  readonly filter: Filter = { text: "", statuses: this.chosen };
  readonly node: HTMLElement;

  constructor(private readonly hooks: ToolbarHooks) {
    this.row.append(...STATUSES.map((status) => this.makeChip(status)));
    Object.assign(this.input, { type: "search", placeholder: "Filter", spellcheck: false, autocomplete: "off" });
    this.input.setAttribute("aria-label", "Filter by name or error");
    this.input.addEventListener("input", () => this.typed());
    this.spoken.setAttribute("role", "status");
    const takes = h("div", "takes", this.makeCopy(), this.makeDownload());
    this.node = h("div", "toolbar", this.row, this.aside, this.shown, this.input, takes, this.spoken);
  }

  /** Offer the statuses that there are; `aside` stands where they do when there are none to choose from. */
  offer(counts: ReadonlyMap<ShownStatus, number>, over: boolean, aside = ""): void {
    text(this.aside, aside);
    hidden(this.aside, aside === "");
    hidden(this.row, aside !== "");
    const digits = count(Math.max(0, ...counts.values())).length;
    for (const [status, { button, figure }] of this.chips) {
      const number = counts.get(status) ?? 0;
      // One that has been there stays while the session runs: what is pressed must not move away.
      const stays = !button.hidden && !over && counts.size > 0;
      hidden(button, number === 0 && !stays && !this.chosen.has(status));
      text(figure, count(number));
      attribute(figure, "style", over ? null : `min-width: ${digits}ch`);
    }
  }

  /** Say how many of how many are shown; an empty table needs no tools. */
  tell(shown: number, total: number): void {
    text(this.shown, filters(this.filter) ? `${count(shown)} of ${count(total)}` : "");
    this.node.style.visibility = total ? "" : "hidden";
  }

  private makeChip(status: ShownStatus): HTMLButtonElement {
    const figure = h("span", "count");
    const button = h("button", "chip", icon(status), h("span", "word", statusWord(status)), figure);
    button.type = "button";
    button.hidden = true;
    button.title = `Only ${statusWord(status)}`;
    button.setAttribute("data-is", status);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.press(status, button));
    this.chips.set(status, { button, figure });
    return button;
  }

  private press(status: ShownStatus, button: HTMLElement): void {
    if (!this.chosen.delete(status)) this.chosen.add(status);
    attribute(button, "aria-pressed", String(this.chosen.has(status)));
    this.changed();
  }

  private typed(): void {
    this.filter.text = this.input.value.trim().toLowerCase();
    this.changed();
  }

  private changed(): void {
    this.hooks.filtered();
    text(this.spoken, this.shown.textContent ? `${this.shown.textContent} shown` : "all shown");
  }

  private makeCopy(): HTMLButtonElement {
    const { button, sign, word } = makeTake("copy", "Copy", "Copy what is shown, for a spreadsheet");
    let forget: ReturnType<typeof setTimeout> | undefined;
    button.addEventListener("click", async () => {
      const copied = await this.hooks.copy();
      text(this.spoken, copied ? "copied" : "the browser refused to copy");
      text(word, copied ? "Copied" : "Failed");
      setIcon(sign, copied ? "completed" : "failed");
      clearTimeout(forget);
      forget = setTimeout(() => {
        text(word, "Copy");
        setIcon(sign, "copy");
      }, SAID_MS);
    });
    return button;
  }

  private makeDownload(): HTMLButtonElement {
    const { button } = makeTake("download", "CSV", "Download what is shown as a CSV file");
    button.addEventListener("click", () => this.hooks.download());
    return button;
  }
}

function makeTake(name: IconName, label: string, title: string) {
  const [sign, word] = [icon(name), h("span", "label", label)];
  const button = h("button", `take ${name}`, sign, word);
  button.type = "button";
  button.title = title;
  return { button, sign, word };
}
