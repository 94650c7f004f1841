// Failures: what failed, by message, the most frequent first.
import { attribute, h, hidden, text } from "../../src/dom";
import { count } from "../../src/format";
import { icon, setIcon } from "../../src/icons";
import type { Piece, Surroundings } from "../../src/piece";
import type { ErrorItem, ErrorPage } from "../../src/wire";
import { words } from "./api";

const EVERY_S = 2;

export class FailuresPiece implements Piece {
  private readonly list = h("ol", "failed-list");
  private readonly empty = h("p", "empty");
  private readonly more = h("button", "more", "Load more");
  readonly node = h("div", "failed-of", this.empty, this.list, this.more);
  private errors: ErrorItem[] = [];
  private next: string | null = null;
  private asked = "";
  private askedAt_s = -Infinity;
  private isRead = false;

  constructor(private readonly context: Surroundings, private readonly read: (cursor: string | null) => Promise<ErrorPage>) {
    this.list.setAttribute("aria-label", "Failures");
    this.more.type = "button";
    this.more.addEventListener("click", () => void this.load(this.next));
  }

  render(now_s: number): void {
    const { counts, state } = this.context.store.head!;
    const failed = counts.failed + counts.timeout;
    const is = `${state} ${failed}`;
    if (is !== this.asked && now_s - this.askedAt_s >= EVERY_S) {
      this.asked = is;
      this.askedAt_s = now_s;
      void this.load(null);
    }
    text(this.empty, failed === 0 ? "Nothing has failed." : this.isRead ? "" : "Reading the journal\u2026");
    hidden(this.empty, this.errors.length > 0 && failed > 0);
    hidden(this.list, this.errors.length === 0 || failed === 0);
  }

  private async load(cursor: string | null): Promise<void> {
    try {
      const page = await this.read(cursor);
      this.errors = cursor === null ? page.items : [...this.errors, ...page.items];
      this.next = page.next;
      this.isRead = true;
      this.patch();
    } catch (error) {
      this.context.say(words(error));
    }
    this.context.redraw();
  }

  private patch(): void {
    while (this.list.childElementCount > this.errors.length) this.list.lastElementChild!.remove();
    this.errors.forEach((error, index) => {
      if (!this.list.children[index]) this.list.append(h("li", "", icon("failed"), h("b"), h("span", "why"), h("small")));
      patchError(this.list.children[index]!, error);
    });
    hidden(this.more, this.next === null);
  }
}

function patchError(row: Element, { message, count: times, status, scope, key }: ErrorItem): void {
  const [sign, number, why, more] = row.children;
  attribute(row, "data-is", status);
  setIcon(sign as SVGSVGElement, status);
  text(number!, `${count(times)}\u00d7`);
  text(why!, message);
  const first = typeof key === "string" ? key : JSON.stringify(key);
  text(more!, [scope, `first: ${first}`].filter(Boolean).join(", "));
}
