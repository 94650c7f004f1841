// Commands: a press of a button, or a question, on its way to the kernel and back.
//
// Rule: a command has one id and is sent by every road under that id; Python acts on an id once.
//   press -> custom message -> Ack or Rows                         the usual road
//         -> 0.3 s without an answer -> private subshell -> answer   while a cell keeps the kernel busy
//         -> no subshells -> control channel -> answer               ipykernel 6
//         -> Python in a browser -> broadcast channel -> answer      JupyterLite
// No cell is ever interrupted. An engine that is busy is asked, and says so: a second answer tells when it has acted.
import type { Ack, Command, CommandName, Errors, FromBrowser, Rows } from "./schema";
import { execute, join, leave, warm, type Kernel } from "./subshell";

const PATIENCE_MS = 300;
const BUSY_MS = 2000;
const SAID_MS = 4000;

const DOING: Record<CommandName, string> = {
  pause: "pausing\u2026",
  resume: "resuming\u2026",
  cancel: "cancelling\u2026",
  lift: "ending the cool-down\u2026",
  start_now: "starting\u2026",
  retry_failed: "retrying failed items\u2026",
  adjust: "changing the limits\u2026",
  items: "",
  open: "",
  errors: "",
};
export const BUSY = "the kernel is busy; the command runs as soon as it is free";
export const GONE = "no kernel is connected to this panel; run its cell again";

export interface Road {
  /** The first part of every id: Python finds the session by it. */
  panelId(): string;
  send(command: Command): void;
  kernel(): Kernel | null;
  /** Tell the user; "" takes back what was told. */
  say(text: string): void;
}

interface Pending {
  id: string;
  name: CommandName;
  timer: ReturnType<typeof setTimeout>;
}

export class Commands {
  /** By what was asked: name and arguments. */
  private readonly pending = new Map<string, Pending>();
  private forget: ReturnType<typeof setTimeout> | undefined;
  private joined: Kernel | null = null;

  constructor(private readonly road: Road) {
    this.kernel();
  }

  /** Send a command; pressed again before its answer, the same id goes once more, in case the first was lost. */
  press(name: CommandName, ...values: (string | number)[]): void {
    const asked = [name, ...values].join("/");
    const known = this.pending.get(asked);
    const pending = known ?? this.expect(asked, name);
    try {
      this.road.send({ kind: "command", id: pending.id, name });
    } catch {
      this.settle(asked, GONE);
      return;
    }
    if (known) return;
    const kernel = this.kernel();
    if (kernel) warm(kernel);
    if (DOING[name] && this.pending.has(asked)) this.say(DOING[name]);
  }

  /** Python's answer, for every view of the panel; "" says nothing. */
  answered(answer: Ack | Rows | Errors): void {
    const [asked, pending] = [...this.pending].find(([, pending]) => pending.id === answer.id) ?? [];
    const words = answer.kind === "ack" ? answer.text : "";
    if (pending && answer.kind === "ack" && !answer.done) {
      clearTimeout(pending.timer); // it has arrived, and the second answer is to come
      this.say(words);
    } else if (asked) this.settle(asked, words);
    else if (words) this.say(words);
  }

  /** An update that no longer offers a command answers it too: its Ack may have been lost. */
  offered(can: readonly CommandName[]): void {
    for (const [asked, { name }] of this.pending) {
      if (DOING[name] && !can.includes(name)) this.settle(asked, "");
    }
  }

  /** Say something by the second road alone; false where there is none. */
  async tell(message: FromBrowser): Promise<boolean> {
    const kernel = this.kernel();
    if (!kernel) return false;
    const told = execute(kernel, { name: "hear", values: [this.road.panelId(), JSON.stringify(message)] }, true);
    return told.then(() => true, () => false);
  }

  /** Whether the kernel seems to be running a cell. */
  isBusy(): boolean {
    return this.kernel()?.status === "busy";
  }

  /** Nobody will answer any more: what waits is given up. */
  giveUp(): void {
    for (const asked of [...this.pending.keys()]) this.settle(asked, "");
  }

  isPending(name: CommandName): boolean {
    return [...this.pending.values()].some((pending) => pending.name === name);
  }

  close(): void {
    for (const pending of this.pending.values()) clearTimeout(pending.timer);
    this.pending.clear();
    clearTimeout(this.forget);
    if (this.joined) leave(this.joined);
    this.joined = null;
  }

  private expect(asked: string, name: CommandName): Pending {
    const timer = setTimeout(() => void this.again(asked, pending), PATIENCE_MS);
    const pending: Pending = { id: this.newId(asked), name, timer };
    this.pending.set(asked, pending);
    return pending;
  }

  private newId(asked: string): string {
    return `${this.road.panelId()}/${crypto.getRandomValues(new Uint32Array(2)).join("")}/${asked}`;
  }

  /** Look the kernel up anew: a page may show its widgets before it is connected. */
  private kernel(): Kernel | null {
    const kernel = this.road.kernel();
    if (kernel === this.joined) return kernel;
    if (this.joined) leave(this.joined);
    if (kernel) join(kernel);
    this.joined = kernel;
    return kernel;
  }

  private async again(asked: string, pending: Pending): Promise<void> {
    const busy = (): void => {
      if (this.pending.get(asked) === pending && DOING[pending.name]) this.say(BUSY);
    };
    const kernel = this.kernel();
    if (!kernel) return busy();
    pending.timer = setTimeout(busy, BUSY_MS);
    await execute(kernel, { name: "act", values: [pending.id] }).catch(busy);
  }

  private settle(asked: string, text: string): void {
    const pending = this.pending.get(asked);
    clearTimeout(pending?.timer);
    this.pending.delete(asked);
    // A question is asked and answered without a word.
    if (text || !pending || DOING[pending.name]) this.say(text);
  }

  private say(text: string): void {
    clearTimeout(this.forget);
    this.road.say(text);
    if (text && this.pending.size === 0) this.forget = setTimeout(() => this.road.say(""), SAID_MS);
  }
}
