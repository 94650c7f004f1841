// Sheet: what stands above the tables of a panel, as pieces.
import { clipped, focusable, h, hidden, text } from "./dom";
import { Facts } from "./facts";
import { Header } from "./header";
import { icon } from "./icons";
import type { Context, Piece } from "./piece";
import { Progress } from "./progress";
import { ended } from "./store";

export class HeaderPiece implements Piece {
  private readonly header: Header;
  readonly node: HTMLElement;

  constructor(private readonly context: Context) {
    this.header = new Header((name) => context.press(name));
    this.node = this.header.node;
  }

  say(words: string): void {
    this.header.say(words);
  }

  render(now_s: number): void {
    const { store } = this.context;
    const known = { head: store.head!, passed_s: store.passed_s(now_s), gone: store.silence(now_s), unix_s: Date.now() / 1000 };
    this.header.patch(known, (name) => this.context.isPending(name));
  }
}

export class ProgressPiece implements Piece {
  private readonly progress: Progress;
  private readonly reason = h("span");
  private readonly ending = h("p", "ending", icon("note"), this.reason);
  readonly node: HTMLElement;

  /** `openErrors` shows what failed, where the view has a place for it. */
  constructor(private readonly context: Context, openErrors?: () => void) {
    this.progress = new Progress(openErrors);
    this.node = h("div", "", this.progress.node, this.ending);
  }

  render(now_s: number): void {
    const { store } = this.context;
    const head = store.head!;
    this.progress.patch(head, store.passed_s(now_s), now_s, store.silence(now_s) !== null);
    text(this.reason, head.reason);
    hidden(this.ending, !ended(head.state) || head.reason === "");
  }
}

export class FactsPiece implements Piece {
  private readonly facts = new Facts();
  readonly node = this.facts.node;

  constructor(private readonly context: Context) {}

  render(now_s: number): void {
    const { store } = this.context;
    this.facts.patch({ head: store.head!, pace: store.pace, moves: store.moves }, store.passed_s(now_s), store.silence(now_s) !== null);
  }
}

export class NotesPiece implements Piece {
  readonly node = h("ul", "notes");

  constructor(private readonly context: Context) {}

  render(): void {
    const { notes } = this.context.store.head!;
    hidden(this.node, notes.length === 0);
    focusable(this.node, notes.length > 3 ? 0 : null);
    while (this.node.childElementCount > notes.length) this.node.lastElementChild!.remove();
    notes.forEach((note, index) => {
      if (!this.node.children[index]) this.node.append(h("li", "", icon("note"), h("span")));
      text(this.node.children[index]!.lastElementChild!, note);
    });
  }
}

/** What became of a press, in a view that has no header to say it. */
export class SaidPiece implements Piece {
  readonly node = h("p", "answer");

  constructor() {
    this.node.setAttribute("role", "status");
  }

  say(words: string): void {
    clipped(this.node, words);
  }

  render(): void {}
}
