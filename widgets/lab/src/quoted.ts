// Quoted: what a submission would take, or what is wrong with it.
import { focusable, h, hidden, text } from "../../src/dom";
import { clock, count, figure, remaining, usd } from "../../src/format";
import { icon } from "../../src/icons";
import type { Quote } from "../../src/wire";
import { kindOf } from "./draft";

const COLUMNS = 8;
/** How the names of durations end. */
const SECONDS = /_s$|^seconds$/;

export class Quoted {
  private readonly title = h("h3");
  private readonly facts = h("p", "facts-of");
  private readonly table = h("table");
  private readonly frame = h("div", "frame", this.table);
  private readonly notes = h("ul", "notes");
  private readonly wrong = h("p", "wrong", icon("warn"), h("span"));
  private readonly idle = h("p", "idle");
  readonly node = h("section", "quoted", this.title, this.idle, this.wrong, this.facts, this.frame, this.notes);

  constructor() {
    this.node.setAttribute("aria-live", "polite");
    focusable(this.frame);
    this.frame.setAttribute("role", "region");
    this.frame.setAttribute("aria-label", "Quote");
    this.wait("Nothing is reserved or sent before you submit.");
  }

  wait(words: string): void {
    this.show(words, "", null);
  }

  /** Tell what became of it. */
  done(title: string, words: string): void {
    this.show(words, "", null, title);
  }

  refuse(words: string): void {
    this.show("", words, null);
  }

  /** Tell it, and why it cannot be submitted all the same. */
  tell(quote: Quote, wrong = ""): void {
    this.show("", wrong, quote);
  }

  private show(idle: string, wrong: string, quote: Quote | null, title = "What it would take"): void {
    text(this.title, title);
    text(this.idle, idle);
    hidden(this.idle, idle === "");
    text(this.wrong.lastElementChild!, wrong);
    hidden(this.wrong, wrong === "");
    hidden(this.facts, quote === null);
    text(this.facts, quote ? factsOf(quote) : "");
    this.notes.replaceChildren(...(quote?.notes ?? []).map((note) => h("li", "", icon("note"), h("span", "", note))));
    hidden(this.notes, !quote?.notes.length);
    const rows = quote ? tableRows(quote.quote) : [];
    hidden(this.frame, rows.length === 0);
    this.table.replaceChildren(...(rows.length ? [headOf(rows), bodyOf(rows)] : []));
  }
}

const UNITS = { prompts: "request", ids: "item", table: "partition" };

/** `12 requests, about 3 m, $0.42, 24 credits of 100`. */
export function factsOf({ template, request_count, seconds, usd: cost, credits }: Quote): string {
  const unit = UNITS[kindOf(template)];
  const parts = [`${count(request_count)} ${unit}${request_count === 1 ? "" : "s"}`];
  const time = seconds ? remaining(...seconds) : "";
  if (time) parts.push(/^\d/.test(time) ? `about ${time}` : time);
  if (cost !== null) parts.push(usd(cost));
  if (credits) parts.push(`${figure(credits.cost)} credits of ${figure(credits.available)}`);
  return parts.join(", ");
}

/** Rows that are alike: a summary among them, with other columns, is told by the notes. */
function tableRows(rows: Record<string, unknown>[]): Record<string, unknown>[] {
  const columns = Object.keys(rows[0] ?? {}).join();
  return rows.filter((row) => Object.keys(row).join() === columns);
}

function namesOf(rows: Record<string, unknown>[]): string[] {
  return Object.keys(rows[0]!)
    .filter((name) => rows.some((row) => isPlain(row[name])))
    .slice(0, COLUMNS);
}

function headOf(rows: Record<string, unknown>[]): HTMLElement {
  const cells = namesOf(rows).map((name) => {
    const cell = h("th", typeof rows[0]![name] === "number" ? "number" : "", name === "seconds" ? "time" : name.replace(SECONDS, "").replaceAll("_", " "));
    cell.scope = "col";
    return cell;
  });
  return h("thead", "", h("tr", "", ...cells));
}

function bodyOf(rows: Record<string, unknown>[]): HTMLElement {
  const names = namesOf(rows);
  return h("tbody", "", ...rows.map((row) => h("tr", "", ...names.map((name) => h("td", typeof row[name] === "number" ? "number" : "", wordsOf(name, row[name]))))));
}

function isPlain(value: unknown): boolean {
  return value !== null && typeof value !== "object" && value !== "";
}

function wordsOf(name: string, value: unknown): string {
  if (typeof value === "number" && SECONDS.test(name)) return value < 60 ? `${figure(value)} s` : clock(value);
  if (typeof value === "number" && name === "usd") return usd(value);
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : Math.abs(value) < 0.1 ? value.toPrecision(2) : figure(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return value === null || value === undefined || typeof value === "object" ? "\u2013" : String(value);
}
