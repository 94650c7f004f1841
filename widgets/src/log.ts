// Log: what happened, newest first.
import { h, text } from "./dom";
import type { Context, Piece } from "./piece";

export class LogPiece implements Piece {
  private readonly words = h("p");
  readonly node = h("div", "log", this.words);

  constructor(private readonly context: Context) {}

  render(): void {
    text(this.words, this.context.store.log.at(-1)?.text ?? "");
  }
}
