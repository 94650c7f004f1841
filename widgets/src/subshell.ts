// Subshell: a second way into the kernel that is open while a cell blocks the first.
//
// JupyterLab >= 4.4 with ipykernel >= 7 (JEP 91). One for each kernel of the page, made when first needed and
// deleted with the last view that might need it. It runs one constant line and touches nothing of the user's.
// ipykernel 6 has none: there the control channel takes that line. Python in a browser has neither, see `broadcast`.
import { broadcast } from "./broadcast";
import { executeByControl, type Controlled } from "./control";

/** A call of one of the functions of Python's `jupyter.panel`. */
export interface Call {
  name: "act" | "hear";
  values: string[];
}

interface Future<T> {
  done: Promise<T>;
}

type Slot = (kernel: unknown, status: string) => void;

/** What is used of JupyterLab's `IKernelConnection`. */
export interface Kernel extends Controlled {
  readonly supportsSubshells?: boolean;
  readonly status?: string;
  readonly statusChanged?: { connect(slot: Slot): unknown; disconnect(slot: Slot): unknown };
  requestCreateSubshell(content: object): Future<{ content: { subshell_id?: string } }>;
  clone(options: { subshellId: string }): Line;
}

interface Line {
  requestExecute(content: { code: string; silent: boolean; store_history: boolean }, disposeOnDone: boolean): Future<unknown>;
  dispose(): void;
}

interface Shared {
  views: number;
  line: Promise<Line> | null;
  /** Whether somebody wants the line to stay open. */
  isKept: boolean;
  /** How many wait for an answer on it. */
  waiting: number;
  slot: Slot;
}

const shared = new Map<Kernel, Shared>();

export function join(kernel: Kernel): void {
  const known = shared.get(kernel);
  if (known) {
    known.views += 1;
    return;
  }
  // A restarted kernel has lost its subshells.
  const slot: Slot = (_, status) => {
    if (status === "restarting" || status === "autorestarting") drop(made);
  };
  const made: Shared = { views: 1, line: null, isKept: false, waiting: 0, slot };
  kernel.statusChanged?.connect(slot);
  shared.set(kernel, made);
}

export function leave(kernel: Kernel): void {
  const known = shared.get(kernel);
  if (!known || --known.views > 0) return;
  shared.delete(kernel);
  kernel.statusChanged?.disconnect(known.slot);
  drop(known);
}

/** Open the line ahead of its need where the need is likely: it takes half a second. */
export function warm(kernel: Kernel): void {
  const known = shared.get(kernel);
  if (!known || !kernel.supportsSubshells || kernel.status !== "busy") return;
  known.isKept = true;
  known.line ??= open(kernel);
  known.line.catch(() => undefined);
}

/**
 * Call Python while a cell may block the kernel's main shell; fails where the kernel has no second way in.
 *
 * `once`: nothing more is expected soon. A line is a connection of its own, on which the kernel's server sends the
 * page all that it sends already: one that stays open doubles the messages.
 */
export async function execute(kernel: Kernel, call: Call, once = false): Promise<void> {
  if (kernel.supportsSubshells) return executeInSubshell(kernel, codeOf(call), once);
  const { implementation } = await kernel.info;
  if (implementation === "ipython") return executeByControl(kernel, codeOf(call)); // others take only shutdowns there
  if (implementation === "pyodide") return broadcast(call);
  throw new Error("the kernel has one way in");
}

/**
 * Python that makes the call. It leaves no name among the user's, and loads nothing: a kernel that has not loaded the
 * panel (it was restarted, or the notebook is yesterday's) has none that could be meant.
 */
function codeOf({ name, values }: Call): string {
  const given = values.map((value) => JSON.stringify(value)).join(", ");
  return `getattr(__import__("sys").modules.get("ipybatch.jupyter.panel"), "${name}", lambda *_: None)(${given})`;
}

async function executeInSubshell(kernel: Kernel, code: string, once: boolean): Promise<void> {
  const known = shared.get(kernel);
  if (!known) return;
  known.isKept ||= !once;
  known.waiting += 1;
  known.line ??= open(kernel);
  try {
    const line = await known.line;
    await line.requestExecute({ code, silent: true, store_history: false }, true).done;
    if (!known.isKept && known.waiting === 1) drop(known);
  } catch (error) {
    drop(known);
    throw error;
  } finally {
    known.waiting -= 1;
  }
}

async function open(kernel: Kernel): Promise<Line> {
  const reply = await kernel.requestCreateSubshell({}).done;
  const subshellId = reply.content.subshell_id;
  if (!subshellId) throw new Error("the kernel made no subshell");
  // Given at birth: the connection's own greeting must not wait for the busy main shell.
  return kernel.clone({ subshellId });
}

/** Disposing of a connection to a subshell deletes the subshell with it. */
function drop(known: Shared): void {
  known.line?.then((line) => line.dispose()).catch(() => undefined);
  known.line = null;
  known.isKept = false;
}
