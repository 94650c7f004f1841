// Csv: rows as text for a spreadsheet, into a file or onto the clipboard.
import { seconds } from "./columns";
import { FORMULA, type Group, type Item, type RecordedItem } from "./schema";
import { shownStatus, statusWord } from "./selection";

type Value = string | number;

const NAME_CHARS = 80;

/** Comma-separated, as RFC 4180 has it. */
export function csv(lines: Value[][]): string {
  return lines.map((cells) => `${cells.map(quoted).join(",")}\r\n`).join("");
}

/** Separated by tabs, which is what a spreadsheet takes from the clipboard. */
export function tsv(lines: Value[][]): string {
  return lines.map((cells) => cells.map((cell) => guarded(cell).replace(/[\t\r\n]+/g, " ")).join("\t")).join("\n");
}

function quoted(value: Value): string {
  const cell = guarded(value);
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

function guarded(value: Value): string {
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  return FORMULA.test(value) ? `'${value}` : value;
}

export function groupLines(groups: Group[], word: string, titles: string[], now_s: number): Value[][] {
  const head = ["#", "Status", word, "Items", "Done", ...titles, "Failed", "Seconds", "Error"];
  const line = (group: Group): Value[] => {
    const { number, name, items, done, failed, error, extra } = group;
    return [number, statusWord(shownStatus(group)), name, items, done, ...titles.map((title) => extra[title] ?? ""), failed, rounded(seconds(group, now_s)), error];
  };
  return [head, ...groups.map(line)];
}

export function itemLines(items: Item[]): Value[][] {
  const line = (item: Item): Value[] => [item.status, item.key, item.attempts, rounded(item.seconds), item.error];
  return [["Status", "Item", "Attempts", "Seconds", "Error"], ...items.map(line)];
}

/** What failed, with all that is known of it. */
export function errorLines(items: RecordedItem[]): Value[][] {
  const line = ({ key, status, attempts, seconds, error, traceback, tries }: RecordedItem): Value[] => {
    const earlier = tries.map((each) => `${each.attempt}: ${each.error}`).join("\n");
    return [key, status, attempts, rounded(seconds), error, traceback, earlier];
  };
  return [["Item", "Status", "Attempts", "Seconds", "Error", "Where", "Earlier attempts"], ...items.map(line)];
}

/** To the millisecond: more figures only pretend. */
function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** A name that every file system takes. */
export function fileName(name: string): string {
  const plain = name.normalize("NFKC").replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[-.]+|[-.]+$/g, "");
  return `${plain.slice(0, NAME_CHARS) || "session"}.csv`;
}

export function download(name: string, words: string): void {
  // Excel takes a file for UTF-8 only when it begins with this mark.
  const url = URL.createObjectURL(new Blob(["\ufeff", words], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser reads it after the click.
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Put text on the clipboard; return whether it is there. */
export async function copy(words: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    // A page served without https has no clipboard.
    return copyMarked(words);
  }
}

function copyMarked(words: string): boolean {
  const before = document.activeElement;
  const area = document.createElement("textarea");
  area.value = words;
  area.style.cssText = "position:fixed;opacity:0";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (before instanceof HTMLElement) before.focus({ preventScroll: true });
  return copied;
}
