// Settings: a small form to change the limits while the session runs.
import { h } from "./dom";
import type { Context, Piece } from "./piece";

export class SettingsPiece implements Piece {
  readonly node = h("form", "settings");

  constructor(private readonly context: Context) {}

  render(): void {
    this.node.hidden = !this.context.store.head!.can.includes("adjust");
  }
}
