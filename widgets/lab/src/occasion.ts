// Occasion: when a batch is submitted, by whose clocks, how often, and who is told of it.
import { h, hidden, ownId } from "../../src/dom";
import type { Misfire, Schedule, ScheduleRequest, SubmissionRequest, Template } from "../../src/wire";
import type { Api } from "./api";
import { choice, entry, Field, option } from "./field";
import { Tell } from "./tell";
import { dayWords, isOwnZone, ownZone } from "./told";

const CLOCK = /^\d{1,2}:\d\d$/;
const DAYS = ["1d", "1w"];

export class Occasion {
  private readonly start = new Field(entry("text", "at once"), "Start", "22:00, or 2030-01-31 22:00.");
  private readonly zone = new Field(entry("text", "the server's own"), "Time zone");
  private readonly repeat = new Field(choice([["", "Once"], ["1h", "Every hour"], ["1d", "Every day"], ["1w", "Every week"], ["cron", "By a cron rule"]]), "Repeat");
  private readonly cron = new Field(entry("text", "0 22 * * 1-5"), "Cron rule");
  private readonly misfire = new Field(choice([["run", "Run once, late"], ["skip", "Skip"], ["ask", "Ask me"]]), "If a time was missed");
  private readonly tell = new Tell();
  private foretold: Schedule | null = null;
  readonly node: HTMLElement;

  constructor() {
    const row = (...fields: { node: HTMLElement }[]): HTMLElement => h("div", "pair", ...fields.map(({ node }) => node));
    const zones = h("datalist", "", ...Intl.supportedValuesOf("timeZone").map((name) => option(name, "")));
    zones.id = ownId("zones");
    this.zone.control.setAttribute("list", zones.id);
    this.zone.control.value = ownZone();
    this.node = h("div", "occasion", row(this.start, this.zone, this.repeat), zones, row(this.cron, this.misfire), this.tell.node);
    this.arrange();
  }

  /** Offer the channels that there are. */
  offer(api: Api): Promise<void> {
    return this.tell.offer(api);
  }

  arrange(): void {
    this.cron.show(this.repeat.control.value === "cron");
    this.misfire.show(this.isRepeated);
    hidden(this.misfire.node.parentElement!, !this.isRepeated);
    if (!this.isRepeated) this.told(null);
  }

  /** Show what a template says; null for none. */
  fill(own: Template | null): void {
    this.start.control.value = own?.start_at ?? "";
    this.zone.control.value = own?.start_at ? (own.zone ?? "") : ownZone();
    this.tell.fill(own?.notify ?? null);
  }

  get isRepeated(): boolean {
    return this.repeat.control.value !== "";
  }

  /** A request with what is chosen here, once. */
  once(request: SubmissionRequest): SubmissionRequest {
    const { start, zone } = this.when;
    const notify = this.tell.said;
    return { ...request, ...(start && { start_at: start }), ...(start && zone && { zone }), ...(notify && { notify }) };
  }

  /** A request with what is chosen here; of what is repeated the schedule says when. */
  of(request: SubmissionRequest): SubmissionRequest {
    const { start_at, zone, ...rest } = this.once(request);
    return this.isRepeated ? rest : { ...rest, ...(start_at && { start_at }), ...(zone && { zone }) };
  }

  /** The schedule of a request, whose name is the schedule's. */
  schedule({ name: _, ...submission }: SubmissionRequest): ScheduleRequest {
    const { start, zone } = this.when;
    const repeat = this.repeat.control.value;
    // Whole days have a time of the clock; hours and cron rules have their own, and begin then.
    const isAt = CLOCK.test(start) && DAYS.includes(repeat);
    const rule = repeat === "cron" ? { cron: this.cron.control.value.trim() } : { every: repeat };
    const begin = isAt ? { at: start } : start ? { start_at: start } : {};
    return { ...rule, ...begin, ...(zone && { zone }), misfire: this.misfire.control.value as Misfire, submission };
  }

  /** Show when it would be submitted; null for once. */
  told(schedule: Schedule | null, now = new Date()): void {
    this.foretold = schedule;
    const { next = [], zone = "" } = schedule ?? {};
    const coming = next.filter((time) => new Date(time) >= now).slice(0, 3);
    const times = coming.map((time) => dayWords(time, now)).join(", ");
    this.repeat.say(times && `Next: ${times}${isOwnZone(zone ?? "") ? "" : `, by the clocks of ${ownZone()}`}`);
  }

  /** Tell it anew: tomorrow is another day by now. */
  retell(): void {
    this.told(this.foretold);
  }

  private get when(): { start: string; zone: string } {
    return { start: this.start.control.value.trim(), zone: this.zone.control.value.trim() };
  }
}
