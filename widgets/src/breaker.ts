// Breaker: the circuit breaker with its history, and how full each window is.
import { h, text } from "./dom";
import type { Context, Piece } from "./piece";

export class BreakerPiece implements Piece {
  private readonly words = h("p");
  readonly node = h("div", "guards", this.words);

  constructor(private readonly context: Context) {}

  render(): void {
    const { head, moves } = this.context.store;
    text(this.words, `${head!.breaker.state}, ${moves.length} moves, ${head!.windows.length} windows`);
  }
}
