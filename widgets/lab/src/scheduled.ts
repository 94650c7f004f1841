// Scheduled: what is submitted again and again: when, what, how the last one ended, and what is asked.
import { attribute, clipped, h, hidden, text } from "../../src/dom";
import { count } from "../../src/format";
import { icon, setIcon } from "../../src/icons";
import type { Schedule } from "../../src/wire";
import { titleOf } from "./draft";
import { STATES } from "./follow";
import type { Hooks } from "./hooks";
import { dayWords, isOwnZone, wholeTime } from "./told";
import { title, tool } from "./tool";

/** As `Listed` takes it. */
export interface Due {
  item: { id: string; schedule: Schedule };
}

export class Scheduled {
  private readonly sign = icon("reload");
  private readonly name = h("span", "subject");
  private readonly rule = h("span", "of");
  private readonly next = h("span", "left");
  private readonly what = h("span", "of");
  private readonly lastSign = icon();
  private readonly lastWords = h("span");
  private readonly last = h("button", "linked", this.lastSign, this.lastWords);
  private readonly note = h("p", "note-of");
  private readonly question = h("p", "question");
  private readonly answers: HTMLElement;
  private readonly run: HTMLButtonElement;
  private readonly hold: HTMLButtonElement;
  private readonly drop: HTMLButtonElement;
  private schedule: Schedule | null = null;
  readonly node: HTMLElement;

  constructor(hooks: Hooks, private readonly saidOf: (id: string) => string) {
    const told = (act: (schedule: Schedule) => void) => () => this.schedule && act(this.schedule);
    this.run = tool("start_now", "", told(({ name }) => hooks.schedule(name, "run_now")));
    this.hold = tool("pause", "", told(({ name, paused }) => hooks.schedule(name, paused ? "resume" : "pause")));
    this.drop = tool("cancel", "", told((schedule) => hooks.unschedule(schedule)));
    this.last.type = "button";
    this.last.addEventListener("click", told((schedule) => hooks.openRun(schedule)));
    const answer = (label: string, choice: "run" | "skip"): HTMLButtonElement => {
      const button = h("button", "", label);
      button.type = "button";
      button.addEventListener("click", told(({ name }) => hooks.schedule(name, "answer", choice)));
      return button;
    };
    this.answers = h("div", "buttons", answer("Run it now", "run"), answer("Skip it", "skip"));
    this.name.dir = "auto";
    this.node = h(
      "li",
      "in-queue",
      h("div", "line", h("span", "open", this.sign, this.name), h("div", "tools", this.run, this.hold, this.drop)),
      h("div", "line", this.rule, this.next),
      h("div", "line", this.what, this.last),
      this.note,
      this.question,
      this.answers,
    );
  }

  patch({ item: { id, schedule } }: Due): void {
    this.schedule = schedule;
    const { name, paused, state, question, note, next, submission } = schedule;
    const said = this.saidOf(id);
    const isAsking = state === "asking";
    attribute(this.node, "data-is", paused ? "paused" : state);
    clipped(this.name, name);
    clipped(this.rule, ruleWords(schedule));
    text(this.next, nextWords(schedule));
    attribute(this.next, "title", next[0] ? wholeTime(next[0]) : null);
    clipped(this.what, titleOf(submission.template));
    this.patchLast(schedule);
    clipped(this.note, said || note);
    hidden(this.note, !said && !note);
    text(this.question, question);
    hidden(this.question, !isAsking);
    hidden(this.answers, !isAsking);
    setIcon(this.hold.querySelector("svg")!, paused ? "resume" : "pause");
    title(this.run, `Run ${name} now`);
    title(this.hold, `${paused ? "Resume" : "Pause"} ${name}`);
    title(this.drop, `Delete ${name}`);
    hidden(this.hold, state === "ended");
  }

  private patchLast({ last }: Schedule): void {
    hidden(this.last, last === null);
    if (!last) return;
    const is = last.failed ? "partly" : STATES[last.state];
    attribute(this.last, "data-is", is);
    setIcon(this.lastSign, is);
    const words = `last ${last.state === "PENDING" ? "waits" : last.failed ? `completed, ${count(last.failed)} failed` : is.replace("_", " ")}, ${dayWords(last.at)}`;
    text(this.lastWords, words);
    attribute(this.last, "title", `Open ${last.name}: ${words}`);
  }
}

/** `daily 22:00`, `every 6h`, `by 0 22 * * 1-5`; by which clocks, where that is not by those of the reader. */
export function ruleWords({ every, at, cron, zone }: Pick<Schedule, "every" | "at" | "cron" | "zone">): string {
  const where = zone && (at || cron) && !isOwnZone(zone) ? ` ${zone}` : "";
  if (cron) return `by ${cron}${where}`;
  const plain: Record<string, string> = { "1h": "hourly", "1d": "daily", "1w": "weekly" };
  return `${plain[every ?? ""] ?? `every ${every}`}${at ? ` ${at}` : ""}${where}`;
}

/** `next 22:00`, `next tomorrow 22:00`, `paused`, `ended`. */
export function nextWords({ state, next }: Pick<Schedule, "state" | "next">, now = new Date()): string {
  if (state === "paused" || state === "ended") return state;
  if (state === "asking") return "waits for an answer";
  return next[0] ? `next ${dayWords(next[0], now)}` : "";
}
