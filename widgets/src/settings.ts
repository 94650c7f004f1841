// Settings: a small form to change the limits while the session runs.
//
// Rule: untouched, the fields show what holds; once edited they are the user's, until they are sent or given up.
import { unitOf } from "./breaker";
import { attribute, h, hidden, ownId, text } from "./dom";
import { limit } from "./format";
import type { Context, Piece } from "./piece";
import type { Head } from "./schema";
import { ended } from "./store";

interface Wanted {
  name: string;
  now: number;
  most: number;
  whole: boolean;
}

export class SettingsPiece implements Piece {
  private readonly fields: Field[] = [];
  private readonly row = h("div", "fields");
  private readonly apply = h("button", "apply", "Apply");
  private readonly reset = h("button", "", "Reset to the session's own");
  private readonly reason = h("p", "means");
  private readonly set = h("fieldset");
  readonly node = h("form", "settings");
  private edited = false;
  /** What was sent stays in the fields until the head that follows its answer. */
  private sent = false;
  private answeredBy: Head | null = null;

  constructor(private readonly context: Context) {
    this.apply.type = "submit";
    this.reset.type = "button";
    const buttons = h("div", "actions", this.apply, this.reset);
    this.set.append(h("legend", "title", "Change the limits"), this.row, buttons);
    this.node.append(this.set, this.reason);
    this.node.noValidate = true;
    this.node.addEventListener("submit", (event) => this.submit(event));
    this.node.addEventListener("input", () => this.edit(true));
    this.node.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.edited) return;
      event.preventDefault(); // it is used up: the next one leaves the panel
      this.edit(false);
    });
    this.reset.addEventListener("click", () => this.send(this.fields.map((field) => field.most)));
  }

  render(): void {
    const head = this.context.store.head!;
    const isGone = this.context.gone() !== null;
    const can = head.can.includes("adjust") && !isGone;
    const busy = this.context.isPending("adjust");
    if (!can) this.edited = this.sent = false;
    this.settle(head, busy);
    this.patchFields(wantedOf(head), !this.edited && !this.sent);
    const atMost = this.fields.every((field) => field.now === field.most);
    this.set.disabled = !can;
    this.apply.disabled = !this.edited || !this.fields.every((field) => field.isValid());
    this.reset.disabled = atMost && !this.edited;
    attribute(this.node, "aria-busy", busy ? "true" : null);
    attribute(this.apply, "aria-busy", busy ? "true" : null);
    hidden(this.reason, can);
    text(this.reason, can ? "" : whyNot(head, isGone));
  }

  private settle(head: Head, busy: boolean): void {
    if (!this.sent || busy) return;
    this.answeredBy ??= head;
    if (this.answeredBy !== head) this.sent = false;
  }

  private patchFields(wanted: Wanted[], follow: boolean): void {
    while (this.fields.length > wanted.length) this.fields.pop()!.node.remove();
    wanted.forEach((one, index) => {
      let field = this.fields[index];
      if (!field) {
        field = this.fields[index] = new Field();
        this.row.append(field.node);
        field.patch(one, true);
      } else field.patch(one, follow);
    });
  }

  private edit(edited: boolean): void {
    this.edited = edited;
    this.sent = false;
    this.context.redraw();
  }

  private submit(event: Event): void {
    event.preventDefault();
    const wrong = this.fields.find((field) => !field.isValid());
    if (wrong) wrong.input.focus();
    else if (this.edited) this.send(this.fields.map((field) => field.value()));
  }

  private send(values: number[]): void {
    this.fields.forEach((field, index) => (field.input.value = String(values[index])));
    this.edited = false;
    if (this.fields.some((field, index) => field.now !== values[index])) {
      this.sent = true;
      this.answeredBy = null;
      this.context.press("adjust", ...values);
    }
    this.context.redraw();
  }
}

/** A number with its unit above it, and beneath it how far it goes, or what is wrong with it. */
class Field {
  private readonly label = h("label");
  private readonly hint = h("small");
  readonly input = h("input");
  readonly node = h("div", "field", this.label, this.input, this.hint);
  private whole = false;
  now = 0;
  most = 0;

  constructor() {
    this.input.type = "number";
    this.input.min = "1";
    this.input.id = this.label.htmlFor = ownId("limit");
    this.hint.id = ownId("hint");
    this.input.setAttribute("aria-describedby", this.hint.id);
    this.hint.setAttribute("aria-live", "polite");
  }

  patch({ name, now, most, whole }: Wanted, follow: boolean): void {
    [this.now, this.most, this.whole] = [now, most, whole];
    text(this.label, name);
    attribute(this.input, "max", String(most));
    attribute(this.input, "step", whole ? "1" : "any");
    if (follow && this.input.value !== String(now)) this.input.value = String(now);
    const valid = this.isValid();
    attribute(this.input, "aria-invalid", valid ? null : "true");
    text(this.hint, valid ? `at most ${limit(most)}` : `${whole ? "a whole number" : "a number"} from 1 to ${limit(most)}`);
  }

  value(): number {
    return this.input.value.trim() === "" ? NaN : Number(this.input.value);
  }

  isValid(): boolean {
    const value = this.value();
    return value >= 1 && value <= this.most && (!this.whole || Number.isInteger(value));
  }
}

function wantedOf(head: Head): Wanted[] {
  const rates = head.windows.map((window) => ({ name: unitOf(window), now: window.limit, most: window.most, whole: false }));
  return [{ name: "attempts at a time", now: head.concurrency, most: head.most_concurrency, whole: true }, ...rates];
}

function whyNot(head: Head, isGone: boolean): string {
  if (isGone) return "Nobody is there to change them.";
  if (ended(head.state)) return "The session has ended: its limits no longer apply.";
  return head.where ? "The limits are changed where the session runs." : "The limits can be changed once the session runs.";
}
