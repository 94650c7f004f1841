// Follow: a submission on its way: queued, running, ended; and what comes of it.
import { Bar } from "../../src/bar";
import { attribute, clipped, h, hidden, text } from "../../src/dom";
import { clock, count, remaining } from "../../src/format";
import { icon, setIcon } from "../../src/icons";
import type { State } from "../../src/schema";
import { tried } from "../../src/store";
import type { Submission, SubmissionState } from "../../src/wire";
import { Api, words } from "./api";
import { titleOf } from "./draft";

const EVERY_MS = 1000;

/** How a session looks that a submission became. */
export const STATES: Record<SubmissionState, State> = {
  PENDING: "planned",
  RUNNING: "running",
  PAUSED: "paused",
  COMPLETED: "completed",
  FAILED: "failed",
  CANCELLED: "cancelled",
  ROLLED_BACK: "rolled_back",
  UNKNOWN: "interrupted",
};
const OVER: SubmissionState[] = ["COMPLETED", "FAILED", "CANCELLED", "ROLLED_BACK"];

export interface Finish {
  open(session: string, name: string): void;
  download(session: string): void;
}

export class Follow {
  private readonly name = h("h2");
  private readonly sign = icon();
  private readonly word = h("span");
  private readonly state = h("span", "state", this.sign, this.word);
  private readonly bar = new Bar();
  private readonly facts = h("p", "facts-of");
  private readonly reason = h("p", "wrong", icon("note"), h("span"));
  private readonly files = h("ul", "files");
  private readonly open = action("Open the session");
  private readonly download = action("Download the results");
  private readonly cancel = action("Cancel", "cancel");
  private readonly again = action("Submit another");
  private submission: Submission | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  readonly node: HTMLElement;

  constructor(private readonly api: Api, finish: Finish, again: () => void) {
    this.open.addEventListener("click", () => finish.open(this.submission!.session!, this.submission!.name));
    this.download.addEventListener("click", () => finish.download(this.submission!.session!));
    this.cancel.addEventListener("click", () => void this.stop());
    this.again.addEventListener("click", () => {
      this.close();
      again();
    });
    const actions = h("div", "actions", this.open, this.download, this.cancel, this.again);
    this.state.setAttribute("role", "status");
    this.files.setAttribute("aria-label", "Files");
    this.node = h("section", "follow", this.name, this.state, this.bar.node, this.facts, this.reason, this.files, actions);
    this.node.hidden = true;
  }

  show(submission: Submission): void {
    this.patch(submission);
    hidden(this.node, false);
    this.next();
  }

  close(): void {
    clearTimeout(this.timer);
    this.submission = null;
    hidden(this.node, true);
  }

  private next(): void {
    clearTimeout(this.timer);
    if (this.submission && !OVER.includes(this.submission.state)) this.timer = setTimeout(() => void this.look(), EVERY_MS);
  }

  private async look(): Promise<void> {
    const id = this.submission?.id;
    if (!id) return;
    try {
      const submission = document.hidden ? null : await this.api.get<Submission>(`/submissions/${id}`);
      if (this.submission?.id !== id) return; // another was begun meanwhile, or the tab closed
      if (submission) this.patch(submission);
    } catch (error) {
      this.say(words(error));
    }
    this.next();
  }

  private async stop(): Promise<void> {
    attribute(this.cancel, "aria-busy", "true");
    try {
      await this.api.delete(`/submissions/${this.submission!.id}`);
      this.patch(await this.api.get<Submission>(`/submissions/${this.submission!.id}`));
    } catch (error) {
      this.say(words(error));
    }
    attribute(this.cancel, "aria-busy", null);
  }

  private patch(submission: Submission): void {
    this.submission = submission;
    const { state, counts, session } = submission;
    const is = STATES[state];
    const isOver = OVER.includes(state);
    clipped(this.name, submission.name || titleOf(submission.template));
    attribute(this.node, "data-is", is);
    attribute(this.state, "data-is", is);
    setIcon(this.sign, is);
    text(this.word, state === "PENDING" ? "queued" : is.replace("_", " "));
    this.bar.patch(submission.name, is, counts);
    text(this.facts, factsOf(submission));
    this.say(submission.reason);
    this.list(submission.results);
    hidden(this.open, session === null);
    hidden(this.download, session === null || tried(counts) === 0);
    hidden(this.cancel, isOver);
    hidden(this.again, !isOver);
  }

  /** What its results hold, as it comes: pictures are shown, and each can be kept. */
  private list(urls: string[]): void {
    hidden(this.files, urls.length === 0);
    if (this.files.childElementCount > urls.length) this.files.replaceChildren();
    for (const url of urls.slice(this.files.childElementCount)) this.files.append(h("li", "", linkTo(url)));
  }

  private say(words: string): void {
    text(this.reason.lastElementChild!, words);
    hidden(this.reason, words === "");
  }
}

/** `3 of 10, 1 failed, about 40 s left, 6 of 20 credits`. */
function factsOf({ counts, request_count, eta_s, credits, starts }: Submission): string {
  const failed = counts.failed + counts.timeout;
  const parts = [`${count(tried(counts))} of ${count(counts.total ?? request_count)}`];
  if (failed) parts.push(`${count(failed)} failed`);
  if (eta_s !== null) parts.push(`about ${remaining(null, eta_s) || clock(eta_s)} left`);
  if (credits) parts.push(credits.used === null ? `${credits.cost} credits reserved` : `${credits.used} of ${credits.cost} credits`);
  if (starts > 1) parts.push(`start ${starts}`);
  return parts.join(", ");
}

function linkTo(url: string): HTMLAnchorElement {
  const name = decodeURIComponent(url.split("/").at(-1)!);
  const picture = Object.assign(document.createElement("img"), { src: url, alt: name, loading: "lazy" });
  const link = h("a", "", ...(/\.(png|jpe?g|webp|gif)$/i.test(name) ? [picture] : [name]));
  return Object.assign(link, { href: url, download: name, title: `Download ${name}` });
}

function action(label: string, name = ""): HTMLButtonElement {
  const button = h("button", name, label);
  button.type = "button";
  return button;
}
