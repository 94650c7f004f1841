// Stack: pieces beneath one another, as one.
import { h } from "./dom";
import type { Piece } from "./piece";

export class Stack implements Piece {
  readonly node: HTMLElement;

  constructor(private readonly pieces: Piece[]) {
    this.node = h("div", "", ...pieces.map((piece) => piece.node));
  }

  render(now_s: number): void {
    for (const piece of this.pieces) piece.render(now_s);
  }
}
