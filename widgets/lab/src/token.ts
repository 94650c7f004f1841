// Token: what the plugins of this extension share.
import { Token } from "@lumino/coreutils";
import type { Api } from "./api";
import type { Feed } from "./feed";
import type { Sessions } from "./sessions";
import type { Settings } from "./settings";
import type { Verbs } from "./verbs";

export interface IBatch {
  readonly api: Api;
  readonly sessions: Sessions;
  readonly feed: Feed;
  readonly verbs: Verbs;
  readonly settings: Settings;
}

export const IBatch = new Token<IBatch>("@ipybatch/lab:IBatch", "The batch sessions of the user, kept current.");

export const PLUGIN = "@ipybatch/lab:sessions";

/** A clock that never jumps: only differences are used. */
export function now_s(): number {
  return performance.now() / 1000;
}
