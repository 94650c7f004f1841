// Occasion: when a batch is submitted, how often, and who is told of it.
import { h, hidden } from "../../src/dom";
import type { ChannelList, Misfire, Schedule, ScheduleRequest, SubmissionRequest } from "../../src/wire";
import type { Api } from "./api";
import { choice, entry, Field, option } from "./field";
import { dayWords } from "./told";

const CLOCK = /^\d{1,2}:\d\d$/;
const NOBODY = "For a message at the end, add a channel in a terminal: python -m ipybatch notify add NAME";

export class Occasion {
  private readonly start = new Field(entry("text", "at once"), "Start", "22:00, or 2030-01-31 22:00.");
  private readonly repeat = new Field(choice([["", "Once"], ["1h", "Every hour"], ["1d", "Every day"], ["1w", "Every week"], ["cron", "By a cron rule"]]), "Repeat");
  private readonly cron = new Field(entry("text", "0 22 * * 1-5"), "Cron rule");
  private readonly misfire = new Field(choice([["run", "Run once, late"], ["skip", "Skip"], ["ask", "Ask me"]]), "If a time was missed");
  private readonly tell = new Field(choice([["", "Nobody"]]), "Tell", NOBODY);
  readonly node: HTMLElement;

  constructor() {
    const row = (...fields: { node: HTMLElement }[]): HTMLElement => h("div", "pair", ...fields.map(({ node }) => node));
    this.node = h("div", "occasion", row(this.start, this.repeat, this.tell), row(this.cron, this.misfire));
    this.arrange();
  }

  /** Offer the channels that there are, by name. */
  async offer(api: Api): Promise<void> {
    const { items } = await api.get<ChannelList>("/channels").catch((): ChannelList => ({ items: [] }));
    const usable = items.filter((one) => one.usable);
    this.tell.control.replaceChildren(option("", "Nobody"), ...usable.map(({ name }) => option(name, name)));
    this.tell.say(usable.length ? "" : NOBODY);
  }

  arrange(): void {
    this.cron.show(this.repeat.control.value === "cron");
    this.misfire.show(this.isRepeated);
    hidden(this.misfire.node.parentElement!, !this.isRepeated);
    if (!this.isRepeated) this.repeat.say("");
  }

  get isRepeated(): boolean {
    return this.repeat.control.value !== "";
  }

  /** A request with what is chosen here. */
  of(request: SubmissionRequest): SubmissionRequest {
    const start = this.start.control.value.trim();
    const notify = this.tell.control.value;
    return { ...request, ...(start && !this.isRepeated ? { start_at: start } : {}), ...(notify ? { notify } : {}) };
  }

  /** The schedule of a request, whose name is the schedule's. */
  schedule({ name: _, ...submission }: SubmissionRequest): ScheduleRequest {
    const start = this.start.control.value.trim();
    const isClock = CLOCK.test(start);
    const repeat = this.repeat.control.value;
    const when = repeat === "cron" ? { cron: this.cron.control.value.trim() } : { every: repeat, ...(isClock && repeat !== "1h" ? { at: start } : {}) };
    return { ...when, ...(start && !isClock ? { start_at: start } : {}), misfire: this.misfire.control.value as Misfire, submission };
  }

  /** Show when it would be submitted. */
  told({ next }: Schedule): void {
    this.repeat.say(next.length ? `Next: ${next.slice(0, 3).map((time) => dayWords(time)).join(", ")}` : "");
  }
}
