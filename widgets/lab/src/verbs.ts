// Verbs: what a button asks of a session, and what became of it.
//
// Rule: a command that was not taken a second after it was asked is not asked again; what can be done instead is offered
// by name.
import type { CommandAnswer, CommandRequest, Schedule, ScheduleCommand, Session, Submission, Verb } from "../../src/wire";
import { Api, part, words } from "./api";
import { standing } from "./overwrite";
import type { Sessions } from "./sessions";
import { pathOf as pathOfTemplate } from "./shelf";

const SAID_MS = 5000;
const OWN_S = 60;
/** An engine that was asked acts within this time, if it can. */
const ACTS_MS = 500;

const DOING: Record<Verb, string> = {
  pause: "pausing\u2026",
  resume: "resuming\u2026",
  cancel: "cancelling\u2026",
  retry_failed: "retrying failed items\u2026",
  adjust: "changing the limits\u2026",
  lift: "ending the cool-down\u2026",
  start_now: "starting\u2026",
};

const SCHEDULING: Record<ScheduleCommand["verb"], string> = {
  pause: "pausing\u2026",
  resume: "resuming\u2026",
  run_now: "submitting\u2026",
  answer: "answering\u2026",
};

export function pathOf(schedule: string): string {
  return `/schedules/${part(schedule)}`;
}

export class Verbs {
  private readonly pending = new Set<string>();
  private readonly said = new Map<string, string>();
  private readonly answers = new Map<string, CommandAnswer>();
  private readonly cancelledAt_s = new Map<string, number>();

  constructor(
    private readonly api: Api,
    private readonly sessions: Sessions,
    private readonly now_s: () => number,
  ) {}

  isPending(id: string, verb: Verb): boolean {
    return this.pending.has(`${id}/${verb}`);
  }

  /** What became of the last press, for a few seconds. */
  saidOf(id: string): string {
    return this.said.get(id) ?? "";
  }

  /** The answer to a command that its kernel does not take. */
  stuck(id: string): CommandAnswer | undefined {
    const item = this.sessions.get(id);
    if (!item) return undefined;
    const answer = this.answers.get(id);
    if (answer && item.can.includes(answer.verb as Verb)) return answer;
    const [verb] = item.untaken;
    return verb && item.kernel ? { id: "", verb, state: "waiting", detail: "", kernel: item.kernel } : undefined;
  }

  /** Whether this page has just cancelled it: its user need not be told that it ended. */
  wasCancelledHere(id: string): boolean {
    return this.now_s() - (this.cancelledAt_s.get(id) ?? -Infinity) < OWN_S;
  }

  async press(id: string, verb: Verb, more: Partial<CommandRequest> = {}): Promise<string> {
    const asked = `${id}/${verb}`;
    if (this.pending.has(asked)) return "";
    this.pending.add(asked);
    if (verb === "cancel") this.cancelledAt_s.set(id, this.now_s());
    this.say(id, DOING[verb]);
    const text = await this.ask(id, { verb, ...more });
    // What the server tells of it from here on is newer than the answer.
    if (await this.look(id)) this.answers.delete(id);
    this.pending.delete(asked);
    this.say(id, text);
    setTimeout(() => void this.look(id), ACTS_MS);
    return text;
  }

  /** Cancel a submission that waits. */
  async withdraw(id: string): Promise<void> {
    this.say(id, DOING.cancel);
    const text = await this.api.delete(`/submissions/${id}`).then(() => "", words);
    if (text === "") this.sessions.queue = this.sessions.queue.filter((one) => one.id !== id);
    this.say(id, text);
  }

  /** Do something with a schedule. */
  async schedule(name: string, command: ScheduleCommand): Promise<void> {
    const id = `schedule ${name}`;
    if (this.pending.has(id)) return; // pressed twice
    this.pending.add(id);
    this.say(id, SCHEDULING[command.verb]);
    try {
      const told = await this.api.post<Schedule>(`${pathOf(name)}/commands`, command);
      this.sessions.schedules = this.sessions.schedules.map((one) => (one.name === name ? told : one));
      this.say(id, "");
    } catch (error) {
      this.say(id, words(error));
    }
    this.pending.delete(id);
  }

  /** Delete a schedule, as it stands now. */
  async unschedule(name: string): Promise<void> {
    const said = await this.api.delete(pathOf(name), { "If-Match": "*" }).then(() => "", words);
    if (said === "") this.sessions.schedules = this.sessions.schedules.filter((one) => one.name !== name);
    this.say(`schedule ${name}`, said);
  }

  /** Return the session that the latest time of a schedule became; null where there is none, and that is said. */
  async runOf({ name, last }: Schedule): Promise<{ id: string; name: string } | null> {
    if (!last) return null;
    const known = [...this.sessions.known.values()].find(({ item }) => item.submission === last.submission)?.item;
    if (known) return known;
    const id = `schedule ${name}`;
    try {
      const { session, state, reason } = await this.api.get<Submission>(`/submissions/${last.submission}`);
      if (session) return { id: session, name: last.name };
      this.say(id, reason || (state === "PENDING" ? "it has not begun yet" : "it has ended before it made a session"));
    } catch (error) {
      this.say(id, words(error));
    }
    return null;
  }

  /** Delete a template, once `sure` says so. */
  async discard(name: string, sure: () => Promise<boolean>): Promise<void> {
    const id = `template ${name}`;
    try {
      const { condition } = await standing(this.api, pathOfTemplate(name));
      if (!(await sure())) return;
      await this.api.delete(pathOfTemplate(name), condition);
      this.sessions.templates = this.sessions.templates.filter((one) => one.name !== name);
      this.say(id, "");
    } catch (error) {
      this.say(id, words(error));
    }
  }

  say(id: string, text: string): void {
    this.said.set(id, text);
    if (!text.endsWith("\u2026")) setTimeout(() => this.forget(id, text), SAID_MS);
    this.sessions.emit();
  }

  private async ask(id: string, request: CommandRequest): Promise<string> {
    try {
      const answer = await this.api.post<CommandAnswer>(`/sessions/${id}/commands?wait=1`, request);
      if (answer.state === "waiting" && answer.kernel) this.answers.set(id, answer);
      else this.answers.delete(id);
      return answer.detail;
    } catch (error) {
      return words(error);
    }
  }

  /** See what came of it without waiting to be told. */
  private async look(id: string): Promise<boolean> {
    const item = await this.api.get<Session>(`/sessions/${id}`).catch(() => null);
    if (!item) return false;
    this.sessions.change({ cursor: 0, items: [item], removed: [] }, this.now_s());
    this.sessions.emit();
    return true;
  }

  private forget(id: string, text: string): void {
    if (this.said.get(id) !== text) return;
    this.said.delete(id);
    this.sessions.emit();
  }
}
