// Selection: which rows are shown, and in what order.
import type { Counts, Head, Status } from "./schema";
import type { Sort } from "./sorthead";

/** What a row shows: a group that ended with failures has not just completed. */
export type ShownStatus = Status | "partly";

/** What a filter may look at. */
export interface Filterable {
  status: Status;
  error: string;
  /** Of a group: how many of its items did not complete. */
  failed?: number;
}

export interface Filter {
  /** Small letters; "" lets everything through. */
  text: string;
  /** None of them lets every status through. */
  statuses: ReadonlySet<ShownStatus>;
}

/** The status that a row shows. */
export function shownStatus({ status, failed }: { status: Status; failed?: number }): ShownStatus {
  return status === "completed" && failed ? "partly" : status;
}

/** What a session's state is told by. */
interface Stated {
  state: Head["state"];
  counts: Counts;
  can: string[];
  outside_hours: boolean;
}

/** The state that a session shows: one that ended with failures has not just completed, and one that waits for its start,
 * or for its working hours, has yet to begin. */
export function shownState({ state, counts, can, outside_hours }: Stated): Head["state"] | "partly" {
  if (can.includes("start_now") || (state === "running" && outside_hours)) return "planned";
  return state === "completed" && counts.failed + counts.timeout ? "partly" : state;
}

/** How such a state is called. */
export function stateWords(session: Stated): string {
  const shown = shownState(session);
  if (shown === "planned" && session.state !== "planned") return "waiting";
  return shown === "partly" ? "completed with failures" : shown.replace("_", " ");
}

/** How a status is called. */
export function statusWord(status: ShownStatus): string {
  return status === "partly" ? "with failures" : status;
}

/** What needs attention comes first. */
export const STATUSES: ShownStatus[] = ["failed", "timeout", "partly", "running", "completed", "cancelled", "skipped", "pending"];

/** `Batch 9` comes before `Batch 10`. */
const COLLATOR = new Intl.Collator("en", { numeric: true });

export function filters(filter: Filter): boolean {
  return filter.text !== "" || filter.statuses.size > 0;
}

export function matches(row: Filterable, name: string, { text, statuses }: Filter): boolean {
  if (statuses.size && !statuses.has(shownStatus(row))) return false;
  return text === "" || name.toLowerCase().includes(text) || row.error.toLowerCase().includes(text);
}

/** Whether a row needs attention. */
export function isBad(row: { status: Status; failed?: number }): boolean {
  return STATUSES.indexOf(shownStatus(row)) < STATUSES.indexOf("running");
}

/** Return `rows` sorted; equal ones stay as they are, and those with nothing to sort by come last either way. */
export function sorted<T>(rows: T[], { column, descending }: Sort<T>): T[] {
  const value = column.value!;
  const keyed = rows.map((row) => ({ row, key: value(row) }));
  const direction = descending ? -1 : 1;
  keyed.sort((a, b) => Number(isBlank(a.key)) - Number(isBlank(b.key)) || direction * compare(a.key, b.key));
  return keyed.map(({ row }) => row);
}

function isBlank(key: string | number): boolean {
  return key === "" || Number.isNaN(key);
}

function compare(a: string | number, b: string | number): number {
  if (typeof a === "number" && typeof b === "number") return a - b || 0;
  return a === b ? 0 : COLLATOR.compare(String(a), String(b));
}
