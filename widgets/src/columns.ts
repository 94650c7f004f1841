// Columns: what the rows of groups and of items show.
import { attribute, clipped, h, text, width } from "./dom";
import { clock, count, countdown, duration, NONE } from "./format";
import { icon, setIcon } from "./icons";
import type { Group, Item, Status } from "./schema";
import { shownStatus, STATUSES, statusWord, type ShownStatus } from "./selection";
import type { Extra } from "./survey";
import type { Column } from "./table";

type Value<T> = (row: T) => string | number;

function words<T>(name: string, title: string, value: Value<T>, say: (row: T) => string): Column<T> {
  return { name, title, value, make: (cell) => (row) => text(cell, say(row)) };
}

/** Text of any length: cut to the column, whole in the tooltip. */
function long<T>(name: string, title: string, say: (row: T) => string): Column<T> {
  return { name, title, value: say, make: (cell) => (row) => clipped(cell, say(row)) };
}

function status<T extends { status: Status; failed?: number }>(): Column<T> {
  const make = (cell: HTMLElement) => {
    const patch = statusSign(cell);
    return (row: T): void => patch(shownStatus(row));
  };
  return { name: "status", title: "Status", value: (row) => STATUSES.indexOf(shownStatus(row)), make };
}

/** Fill `node` with a status as icon and word; return what changes it. */
export function statusSign(node: HTMLElement): (status: ShownStatus) => void {
  const sign = icon();
  const word = h("span", "word");
  node.append(sign, word);
  return (status) => {
    setIcon(sign, status);
    attribute(node, "data-is", status);
    attribute(node, "title", statusWord(status));
    text(word, statusWord(status));
  };
}

function items(): Column<Group> {
  const make = (cell: HTMLElement) => {
    const [ok, bad] = [h("i", "ok"), h("i", "bad")];
    const figures = h("span", "figures");
    cell.append(figures, h("span", "mini", ok, bad));
    return (row: Group): void => {
      text(figures, `${count(row.done)}\u2009/\u2009${count(row.items)}`);
      const shown = row.items && !setAside(row);
      width(ok, shown ? (row.done - row.failed) / row.items : 0);
      width(bad, shown ? row.failed / row.items : 0);
    };
  };
  return { name: "items", title: "Items", value: (group) => group.done, make };
}

/** Whether all there is in a group was cancelled: it has not failed, and what it had is not kept. */
function setAside(group: Group): boolean {
  return group.items === 1 && group.status === "cancelled";
}

function failed(): Column<Group> {
  return words("failures", "Failed", failures, (group) => (failures(group) ? count(failures(group)) : ""));
}

function failures(group: Group): number {
  return setAside(group) ? 0 : group.failed;
}

function extra({ title, numeric }: Extra, index: number, now_s: () => number): Column<Group> {
  const value = (group: Group): string | number => group.extra[title] ?? "";
  const name = `extra no-${index} ${numeric ? "amount" : "text"}`;
  return { name, title, value, make: (cell) => (group) => clipped(cell, said(value(group), now_s())) };
}

/** A value of the workload's, as it is shown. */
export function said(value: string | number, now_s: number): string {
  return typeof value === "number" ? count(value) : countdown(value, now_s);
}

/** A group's name: of `Partition 3 (Sofifi)` what it is of, since its number has a column; whole in the tooltip. */
function named(cell: HTMLElement, name: string): void {
  attribute(cell, "title", name);
  text(cell, /^\S+ \d+ \((.+)\)$/.exec(name)?.[1] ?? name);
}

/**
 * The columns of groups; `now_s` is Unix time, for the rows that run. Where each group is one item, such as a partition,
 * its status says how many are done and failed.
 */
export function groupColumns(extras: Extra[], now_s: () => number, single = false): Column<Group>[] {
  return [
    words("number", "#", (group) => group.number, (group) => count(group.number)),
    status(),
    { ...long<Group>("subject", "Name", (group) => group.name), make: (cell) => (group) => named(cell, group.name) },
    ...(single ? [] : [items()]),
    ...extras.map((each, index) => extra(each, index, now_s)),
    ...(single ? [] : [failed()]),
    words("time", "Time", (group) => seconds(group, now_s()), (group) => time(group, now_s())),
    long("error", "Error", (group) => (group.error === group.status ? "" : group.error)),
  ];
}

/** How long a group took, or has taken so far; NaN when it has not begun. */
export function seconds(group: Group, now_s: number): number {
  if (group.started_s === 0) return NaN;
  if (group.ended_s > 0) return group.ended_s - group.started_s;
  return group.status === "running" ? now_s - group.started_s : NaN;
}

function time(group: Group, now_s: number): string {
  const took_s = seconds(group, now_s);
  if (Number.isNaN(took_s)) return NONE;
  return group.ended_s > 0 ? duration(took_s) : clock(took_s);
}

export function itemColumns(): Column<Item>[] {
  return [
    status(),
    long("subject", "Item", (item) => item.key),
    words("attempts", "Attempts", (item) => item.attempts, (item) => count(item.attempts)),
    words("time", "Time", (item) => (item.attempts ? item.seconds : NaN), (item) => took(item)),
    long("error", "Error", (item) => item.error),
  ];
}

export function took(item: { attempts: number; seconds: number }): string {
  return item.attempts ? duration(item.seconds) : NONE;
}
