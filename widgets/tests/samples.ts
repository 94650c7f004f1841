// Samples: a small valid message, a model that records what is sent, and a kernel with subshells.
import type { Context } from "../src/piece";
import type { Counts, Group, Head, Item, Update } from "../src/schema";
import type { Store } from "../src/store";

export function counts(changes: Partial<Counts> = {}): Counts {
  const none = { pending: 0, running: 0, completed: 0, failed: 0, timeout: 0, cancelled: 0, skipped: 0, total: 0 };
  return { ...none, ...changes };
}

export function head(changes: Partial<Head> = {}): Head {
  return {
    at_s: 1060,
    name: "wishlist",
    state: "running",
    reason: "",
    waiting: "",
    outside_hours: false,
    counts: counts({ pending: 3, running: 1, completed: 6, total: 10 }),
    started_s: 1000,
    elapsed_s: 60,
    eta_low_s: 40,
    eta_high_s: 42,
    rate_per_s: 0.5,
    allowed_per_s: 1,
    breaker: { state: "closed", failures: 0, threshold: 3, openings: 0, give_up_after: 5, probe_in_s: 0, limit_group: "" },
    windows: [{ used: 17, limit: 200, most: 200, per_s: 300, unit: "requests" }],
    limit_groups: [],
    more_limit_groups: 0,
    queued: [],
    concurrency: 3,
    most_concurrency: 3,
    cool_down_s: 0,
    cool_why: "",
    sharing: [],
    running_elsewhere: 0,
    spent_usd: null,
    budget_usd: null,
    recorded: 6,
    facts: [],
    notes: [],
    where: "",
    untold: false,
    can: ["pause", "cancel", "adjust"],
    reopen: "BatchSession.open('wishlist')",
    ...changes,
  };
}

export function update(seq: number, changes: Partial<Update> = {}): Update {
  const rows = { columns: [], groups: [], items: [], failures: [] };
  const history = { pace_at: 0, pace: [], moves: [], log: [] };
  return { kind: "update", seq, whole: false, pages: [], always: [], head: head(), group_word: "Batch", ...rows, ...history, ...changes };
}

export function group(number: number, changes: Partial<Group> = {}): Group {
  const name = `Batch ${number}`;
  const times = { started_s: 1000, ended_s: 1014.2 };
  return { number, name, status: "completed", items: 15, done: 15, failed: 0, ...times, error: "", extra: {}, lasts: false, ...changes };
}

export function item(key: string, changes: Partial<Item> = {}): Item {
  return { key, group: 0, status: "completed", attempts: 1, seconds: 0.2, error: "", ...changes };
}

/** What a piece may use, with nothing behind it. */
export function context(store: Store, changes: Partial<Context> = {}): Context {
  const nothing = (): void => undefined;
  const acts = { press: nothing, isPending: () => false, say: nothing, open: nothing, redraw: nothing };
  return { store, ...acts, gone: () => null, unix_s: () => 2000, ...changes };
}

type Handler = (message: unknown, buffers: DataView[]) => void;

/** What anywidget hands to `render`, as far as the panel uses it. */
export class Model {
  readonly sent: { kind: string; id?: string; view?: string }[] = [];
  readonly handlers = new Set<Handler>();
  /** What is called when the comm is opened or closed. */
  readonly watchers = new Set<() => void>();

  constructor(
    private readonly traits: Record<string, unknown>,
    readonly widget_manager: { kernel: unknown } = { kernel: null },
  ) {}

  get(name: string): unknown {
    return this.traits[name];
  }

  on(event: string, handler: Handler & (() => void)): void {
    if (event === "msg:custom") this.handlers.add(handler);
    else this.watchers.add(handler);
  }

  off(_event: string, handler: Handler & (() => void)): void {
    this.handlers.delete(handler);
    this.watchers.delete(handler);
  }

  send(message: { kind: string }): void {
    this.sent.push(message);
  }

  receive(...messages: unknown[]): void {
    const views = messages.map((message) => {
      const bytes = new TextEncoder().encode(JSON.stringify(message));
      return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    });
    for (const handler of this.handlers) handler({}, views);
  }

  /** The view that has said hello. */
  page(): string {
    return this.sent.find((message) => message.kind === "hello")!.view!;
  }

  kinds(): string[] {
    return this.sent.map((message) => message.kind);
  }
}

export interface ControlMessage {
  channel: string;
  header: { msg_type: string; session: string };
  content: { code: string; silent: boolean; store_history: boolean; allow_stdin: boolean };
}

/** JupyterLab's kernel connection, as far as the panel uses it. */
export class SubshellKernel {
  readonly supportsSubshells: boolean = true;
  readonly clientId = "page-1";
  readonly username = "";
  readonly info: Promise<{ implementation?: string }> = Promise.resolve({ implementation: "ipython" });
  readonly code: string[] = [];
  readonly controlled: ControlMessage[] = [];
  status = "idle";
  created = 0;
  disposed = 0;
  broken = false;
  private readonly slots = new Set<(kernel: unknown, status: string) => void>();
  readonly statusChanged = {
    connect: (slot: (kernel: unknown, status: string) => void) => this.slots.add(slot),
    disconnect: (slot: (kernel: unknown, status: string) => void) => this.slots.delete(slot),
  };

  requestCreateSubshell(): { done: Promise<{ content: { subshell_id?: string } }> } {
    this.created += 1;
    const content = this.broken ? {} : { subshell_id: `sub-${this.created}` };
    return { done: Promise.resolve({ content }) };
  }

  clone(options: { subshellId: string }) {
    if (!options.subshellId) throw new Error("a line needs its subshell");
    return {
      requestExecute: ({ code }: { code: string }) => {
        this.code.push(code);
        return { done: Promise.resolve() };
      },
      dispose: () => {
        this.disposed += 1;
      },
    };
  }

  sendControlMessage(message: object): { done: Promise<unknown> } {
    this.controlled.push(message as ControlMessage);
    return { done: this.broken ? new Promise(() => undefined) : Promise.resolve() };
  }

  get watched(): number {
    return this.slots.size;
  }

  restart(): void {
    this.turn("restarting");
  }

  turn(status: string): void {
    this.status = status;
    for (const slot of this.slots) slot(this, status);
  }
}
