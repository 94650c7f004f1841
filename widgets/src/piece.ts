// Piece: a part of a view. Its nodes are made once and patched from the store, at most once a frame.
import type { CommandName } from "./schema";
import type { Silence } from "./silence";
import type { Store } from "./store";

export interface Piece {
  readonly node: HTMLElement;
  /** Patch the nodes; `now_s` is a clock that never jumps. */
  render(now_s: number): void;
}

/** What a view needs of the page that it is in. */
export interface Surroundings {
  readonly store: Store;
  /** Send a command, with its arguments. */
  press(name: CommandName, ...values: (string | number)[]): void;
  /** Whether a command of that name waits for its answer. */
  isPending(name: CommandName): boolean;
  /** Tell the user something for a few seconds; "" takes it back. */
  say(words: string): void;
  /** Draw soon: something of the piece's own has changed. */
  redraw(): void;
  /** A line was opened: ask for the rest of what it shows, and tell whether that is to come. */
  unfolded?(): boolean;
  /** Null while there is word of the session; else who is gone, so that clocks stand and nothing is offered. */
  gone(): Silence | null;
  /** Unix time of this machine, seconds; it stands at the last word while `gone`. */
  unix_s(): number;
  /** Set where "retry_failed" takes no search: all that failed is run again, or nothing. */
  readonly retriesAll?: boolean;
}

/** What a piece may use. */
export interface Context extends Surroundings {
  /** Bring the tab of that name to the front, if the view has one. */
  open(name: string): void;
}
