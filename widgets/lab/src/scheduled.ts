// Scheduled: what is submitted again and again: what, when next, how the last one ended, and what is asked.
import { attribute, clipped, h, hidden, text } from "../../src/dom";
import { icon, setIcon } from "../../src/icons";
import type { Schedule } from "../../src/wire";
import { titleOf } from "./draft";
import type { Hooks } from "./hooks";
import { dayWords, wholeTime } from "./told";
import { title, tool } from "./tool";

/** As `Listed` takes it. */
export interface Due {
  item: { id: string; schedule: Schedule };
}

const STATES: Record<string, string> = { PENDING: "waits", ROLLED_BACK: "rolled back" };

export class Scheduled {
  private readonly sign = icon("reload");
  private readonly name = h("span", "subject");
  private readonly what = h("span", "of");
  private readonly next = h("span", "left");
  private readonly last = h("button", "linked");
  private readonly question = h("p", "question");
  private readonly answers: HTMLElement;
  private readonly run: HTMLButtonElement;
  private readonly hold: HTMLButtonElement;
  private readonly drop: HTMLButtonElement;
  private schedule: Schedule | null = null;
  readonly node: HTMLElement;

  constructor(hooks: Hooks, private readonly saidOf: (id: string) => string) {
    const told = (act: (schedule: Schedule) => void) => () => this.schedule && act(this.schedule);
    this.run = tool("skipped", "", told(({ name }) => hooks.schedule(name, "run_now")));
    this.hold = tool("pause", "", told(({ name, paused }) => hooks.schedule(name, paused ? "resume" : "pause")));
    this.drop = tool("cancel", "", told((schedule) => hooks.unschedule(schedule)));
    this.last.type = "button";
    this.last.addEventListener("click", told(({ last }) => last && hooks.openRun(last.submission)));
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
      h("div", "line", this.what, this.next),
      h("div", "line", this.last),
      this.question,
      this.answers,
    );
  }

  patch({ item: { id, schedule } }: Due): void {
    this.schedule = schedule;
    const { name, paused, state, question, last, note, next } = schedule;
    const said = this.saidOf(id);
    clipped(this.name, name);
    clipped(this.what, said || `${titleOf(schedule.submission.template)}, ${ruleWords(schedule)}`);
    text(this.next, said ? "" : nextWords(schedule));
    attribute(this.next, "title", next[0] ? wholeTime(next[0]) : null);
    hidden(this.last.parentElement!, last === null && note === "");
    this.last.disabled = last === null;
    const ended = last && `last: ${STATES[last.state] ?? last.state.toLowerCase()}, ${dayWords(last.at)}`;
    clipped(this.last, note || ended || "");
    const isAsking = state === "asking";
    text(this.question, question);
    hidden(this.question, !isAsking);
    hidden(this.answers, !isAsking);
    setIcon(this.hold.querySelector("svg")!, paused ? "resume" : "pause");
    title(this.run, `Run ${name} now`);
    title(this.hold, `${paused ? "Resume" : "Pause"} ${name}`);
    title(this.drop, `Delete ${name}`);
    hidden(this.hold, state === "ended");
  }
}

/** `every day at 22:00`, `every 6h`, `by 0 22 * * 1-5`. */
export function ruleWords({ every, at, cron }: Pick<Schedule, "every" | "at" | "cron">): string {
  if (cron) return `by ${cron}`;
  const plain: Record<string, string> = { "1h": "every hour", "1d": "every day", "1w": "every week" };
  return `${plain[every ?? ""] ?? `every ${every}`}${at ? ` at ${at}` : ""}`;
}

/** `next 22:00`, `next tomorrow 22:00`, `paused`, `ended`. */
export function nextWords({ state, next }: Pick<Schedule, "state" | "next">, now = new Date()): string {
  if (state === "paused" || state === "ended") return state;
  if (state === "asking") return "waits for an answer";
  return next[0] ? `next ${dayWords(next[0], now)}` : "";
}
