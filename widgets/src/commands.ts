// Commands: a press of a button on its way to the kernel and back.
//
// Rule: a command has one id and is sent by every road under that id; Python acts on an id once.
//   press -> custom message -> Ack                         the usual road
//         -> 0.3 s without an Ack -> private subshell -> Ack   while a cell keeps the kernel busy
import type { Ack, Command, CommandName } from "./schema";
import { execute, join, leave, warm, type Kernel } from "./subshell";

const PATIENCE_MS = 300;
const SAID_MS = 4000;

const DOING: Record<CommandName, string> = {
  pause: "pausing\u2026",
  resume: "resuming\u2026",
  cancel: "cancelling\u2026",
  retry_failed: "starting the failed ones again\u2026",
};
export const BUSY = "the kernel is busy; it will act as soon as it listens";
export const GONE = "no kernel listens to this panel; run its cell again";

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
  timer: ReturnType<typeof setTimeout>;
}

export class Commands {
  private readonly pending = new Map<CommandName, Pending>();
  private forget: ReturnType<typeof setTimeout> | undefined;
  private joined: Kernel | null = null;

  constructor(private readonly road: Road) {
    this.kernel();
  }

  /** Send a command; pressed again before its Ack, the same id goes once more, in case the first was lost. */
  press(name: CommandName): void {
    const id = this.pending.get(name)?.id ?? this.newId(name);
    try {
      this.road.send({ kind: "command", id, name });
    } catch {
      this.settle(name, GONE);
      return;
    }
    if (this.pending.has(name)) return;
    const kernel = this.kernel();
    if (kernel) warm(kernel);
    this.say(DOING[name]);
    this.pending.set(name, { id, timer: setTimeout(() => void this.again(name, id), PATIENCE_MS) });
  }

  /** Python's answer, for every view of the panel. */
  ack(ack: Ack): void {
    const name = [...this.pending].find(([, pending]) => pending.id === ack.id)?.[0];
    if (name) this.settle(name, ack.text);
    else this.say(ack.text);
  }

  /** An update that no longer offers a command answers it too: its Ack may have been lost. */
  offered(can: readonly CommandName[]): void {
    for (const name of this.pending.keys()) {
      if (!can.includes(name)) this.settle(name, "");
    }
  }

  isPending(name: CommandName): boolean {
    return this.pending.has(name);
  }

  close(): void {
    for (const pending of this.pending.values()) clearTimeout(pending.timer);
    this.pending.clear();
    clearTimeout(this.forget);
    if (this.joined) leave(this.joined);
    this.joined = null;
  }

  private newId(name: CommandName): string {
    return `${this.road.panelId()}/${crypto.getRandomValues(new Uint32Array(2)).join("")}/${name}`;
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

  private async again(name: CommandName, id: string): Promise<void> {
    const kernel = this.kernel();
    if (!kernel?.supportsSubshells) return this.say(BUSY);
    // An import statement would leave a name among the user's.
    const code = `__import__("ipybatch.jupyter").jupyter.panel.act(${JSON.stringify(id)})`;
    await execute(kernel, code).catch(() => {
      if (this.pending.get(name)?.id === id) this.say(BUSY);
    });
  }

  private settle(name: CommandName, text: string): void {
    clearTimeout(this.pending.get(name)?.timer);
    this.pending.delete(name);
    this.say(text);
  }

  private say(text: string): void {
    clearTimeout(this.forget);
    this.road.say(text);
    if (text && this.pending.size === 0) this.forget = setTimeout(() => this.road.say(""), SAID_MS);
  }
}
