// Timeline: attempts a second against the limits, and the groups as bars.
import { h, text } from "./dom";
import type { Context, Piece } from "./piece";

export class TimelinePiece implements Piece {
  private readonly words = h("p");
  readonly node = h("div", "timeline", this.words);

  constructor(private readonly context: Context) {}

  render(): void {
    text(this.words, `${this.context.store.pace.length} marks`);
  }
}
