// Columns: what the rows of groups and of items show.
import { attribute, clipped, h, text, width } from "./dom";
import { clock, count, duration, NONE } from "./format";
import { icon, setIcon } from "./icons";
import type { Group, Item, Status } from "./schema";
import type { Column } from "./table";

function words<T>(name: string, title: string, say: (row: T) => string): Column<T> {
  return { name, title, make: (cell) => (row) => text(cell, say(row)) };
}

/** Text of any length: cut to the column, whole in the tooltip. */
function long<T>(name: string, title: string, say: (row: T) => string): Column<T> {
  return { name, title, make: (cell) => (row) => clipped(cell, say(row)) };
}

function status<T extends { status: Status }>(): Column<T> {
  const make = (cell: HTMLElement) => {
    const sign = icon();
    const word = h("span", "word");
    cell.append(sign, word);
    return (row: T): void => {
      setIcon(sign, row.status);
      attribute(cell, "data-is", row.status);
      attribute(cell, "title", row.status);
      text(word, row.status);
    };
  };
  return { name: "status", title: "Status", make };
}

function items(): Column<Group> {
  const make = (cell: HTMLElement) => {
    const [ok, bad] = [h("i", "ok"), h("i", "bad")];
    const figures = h("span", "figures");
    cell.append(figures, h("span", "mini", ok, bad));
    return (row: Group): void => {
      text(figures, `${count(row.done)}\u2009/\u2009${count(row.items)}`);
      width(ok, row.items ? (row.done - row.failed) / row.items : 0);
      width(bad, row.items ? row.failed / row.items : 0);
    };
  };
  return { name: "items", title: "Items", make };
}

/** The columns of groups; `now_s` is Unix time, for the rows that run. */
export function groupColumns(now_s: () => number): Column<Group>[] {
  return [
    words("number", "#", (group) => count(group.number)),
    status(),
    long("key", "Name", (group) => group.name),
    items(),
    words("failures", "Failed", (group) => (group.failed ? count(group.failed) : "")),
    words("time", "Time", (group) => time(group, now_s())),
    long("error", "Error", (group) => group.error),
  ];
}

function time(group: Group, now_s: number): string {
  if (group.started_s === 0) return NONE;
  if (group.ended_s > 0) return duration(group.ended_s - group.started_s);
  return group.status === "running" ? clock(now_s - group.started_s) : NONE;
}

export function itemColumns(): Column<Item>[] {
  return [
    status(),
    long("key", "Item", (item) => item.key),
    words("attempts", "Attempts", (item) => count(item.attempts)),
    words("time", "Time", (item) => (item.attempts ? duration(item.seconds) : NONE)),
    long("error", "Error", (item) => item.error),
  ];
}
