// Sidebar: live sessions, then past ones; what is wrong above them, what can be begun where there are none.
import { attribute, focusable, h, hidden, ownId, text } from "../../src/dom";
import { count } from "../../src/format";
import { icon } from "../../src/icons";
import { Card } from "./card";
import { choice } from "./field";
import type { Hooks } from "./hooks";
import { Listed } from "./listed";
import { Queued, type Waiting } from "./queued";
import { rove } from "./roving";
import { Row } from "./row";
import { Scheduled, type Due } from "./scheduled";
import type { Entry, Sessions } from "./sessions";
import { TemplateRow, type Kept } from "./template";
import { endWords } from "./told";
import { tool } from "./tool";
import type { Verbs } from "./verbs";

const TYPED_MS = 250;
const STATES: [string, string][] = [
  ["", "All"],
  ["running", "Running"],
  ["paused", "Paused"],
  ["completed", "Completed"],
  ["failed", "Failed"],
  ["cancelled", "Cancelled"],
  ["interrupted", "Interrupted"],
  ["rolled_back", "Rolled back"],
];
const CODE = 'session = BatchSession(\n    "wishlist", fetch, ids)\nsession.start()';

export interface Listing {
  /** Look for the sessions of a filter. */
  search(name: string, state: string): void;
  more(): Promise<void>;
}

export class Sidebar {
  private readonly banner = new Banner();
  private readonly name = h("input", "filter");
  private readonly state = choice(STATES);
  private readonly filter = h("div", "filters", this.name, this.state);
  private readonly live: Listed<Entry>;
  private readonly queued: Listed<Waiting>;
  private readonly scheduled: Listed<Due>;
  private readonly kept: Listed<Kept>;
  private readonly past: Listed<Entry>;
  private readonly liveTitle = h("h3", "section", "Live");
  private readonly queuedTitle = h("h3", "section", "Queued");
  private readonly scheduledTitle = h("h3", "section", "Scheduled");
  private readonly keptTitle = h("h3", "section", "Templates");
  private readonly pastTitle = h("h3", "section", "Past");
  private readonly skeleton = skeleton();
  private readonly empty: HTMLElement;
  private readonly none = h("p", "none");
  private readonly more = h("button", "more", "Load more");
  private readonly unread = h("ul", "notes");
  private readonly spoken = h("span", "spoken");
  private readonly settle: () => void;
  /** When it was drawn: `22:00` of today, and of tomorrow, is told by that. */
  private day = "";
  private typing: ReturnType<typeof setTimeout> | undefined;
  readonly node: HTMLElement;

  constructor(
    private readonly sessions: Sessions,
    verbs: Verbs,
    private readonly listing: Listing,
    hooks: Hooks,
    private readonly version: string,
  ) {
    this.live = new Listed("Live sessions", () => new Card(hooks, verbs));
    this.queued = new Listed("Queued submissions", () => new Queued(hooks, (id) => verbs.saidOf(id)));
    this.scheduled = new Listed("Schedules", () => new Scheduled(hooks, (id) => verbs.saidOf(id)));
    this.kept = new Listed("Templates", () => new TemplateRow(hooks, (id) => verbs.saidOf(id)));
    this.past = new Listed("Past sessions", () => new Row(hooks, verbs));
    this.empty = emptyState(hooks);
    this.banner.retry.addEventListener("click", () => hooks.refresh());
    this.banner.reload.addEventListener("click", () => hooks.reload());
    this.makeFilter();
    this.more.type = "button";
    this.more.addEventListener("click", () => void this.loadMore());
    this.spoken.setAttribute("role", "status");
    sessions.onEnd((item) => text(this.spoken, endWords(item)));
    const tools = [tool("plus", "New batch\u2026", () => hooks.create()), tool("reload", "Refresh", () => hooks.refresh())];
    for (const one of tools) one.tabIndex = 0;
    const top = h("header", "", h("h2", "", "Batch sessions"), h("div", "tools", ...tools));
    const lists = h("div", "lists-of", this.liveTitle, this.live.node, this.queuedTitle, this.queued.node, this.scheduledTitle, this.scheduled.node, this.keptTitle, this.kept.node, this.pastTitle, this.past.node);
    this.settle = rove(lists, "li");
    const body = h("div", "scroll", this.skeleton, this.empty, lists, this.none, this.more, this.unread);
    this.node = h("section", "side", top, this.banner.node, this.filter, body, this.spoken);
    this.node.setAttribute("aria-label", "Batch sessions");
    // JupyterLab would take the arrows and Enter for its own.
    this.node.setAttribute("data-lm-suppress-shortcuts", "true");
  }

  /** Whether time alone changes what is shown: what is live goes on, what waits begins, and a day is another one. */
  isOld(): boolean {
    const { live, queue } = this.sessions;
    return live.length + queue.length > 0 || this.day !== new Date().toDateString();
  }

  render(now_s: number): void {
    const { sessions } = this;
    this.day = new Date().toDateString();
    const live = sessions.shownLive;
    const queued = sessions.shownQueue;
    const scheduled = sessions.shownSchedules;
    const templates = sessions.shownTemplates;
    const past = sessions.shownPast;
    const filtered = sessions.filter.name !== "" || sessions.filter.state !== "";
    const some = live.length + queued.length + scheduled.length + past.length > 0;
    this.banner.patch(sessions, this.version);
    hidden(this.skeleton, sessions.isListed || some || sessions.health !== "loading");
    hidden(this.empty, some || filtered || !sessions.isListed);
    hidden(this.filter, !filtered && sessions.known.size === 0 && queued.length + scheduled.length + templates.length === 0);
    hidden(this.none, some || templates.length > 0 || !filtered);
    text(this.none, sessions.isListed ? "No session matches the filter." : "Searching\u2026");
    const show = <E extends { item: { id: string } }>(title: HTMLElement, list: Listed<E>, entries: E[]): void => {
      hidden(title, entries.length === 0);
      hidden(list.node, entries.length === 0);
      list.patch(entries, now_s);
    };
    show(this.liveTitle, this.live, live);
    show(this.queuedTitle, this.queued, queued);
    show(this.scheduledTitle, this.scheduled, scheduled);
    show(this.keptTitle, this.kept, templates);
    show(this.pastTitle, this.past, past);
    text(this.liveTitle, `Live ${count(live.length)}`);
    text(this.queuedTitle, `Queued ${count(queued.length)}`);
    text(this.scheduledTitle, `Scheduled ${count(scheduled.length)}`);
    text(this.keptTitle, `Templates ${count(templates.length)}`);
    hidden(this.more, sessions.next === null);
    hidden(this.unread, sessions.unread.length === 0);
    this.unread.replaceChildren(...sessions.unread.map((words) => h("li", "", icon("note"), h("span", "", words))));
    this.settle();
  }

  private makeFilter(): void {
    Object.assign(this.name, { type: "search", placeholder: "Filter by name", spellcheck: false, autocomplete: "off" });
    this.name.setAttribute("aria-label", "Filter by name");
    this.state.setAttribute("aria-label", "Filter by state");
    this.name.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.search(), TYPED_MS);
    });
    this.state.addEventListener("change", () => this.search());
  }

  private search(): void {
    clearTimeout(this.typing);
    this.listing.search(this.name.value.trim().toLowerCase(), this.state.value);
  }

  private async loadMore(): Promise<void> {
    attribute(this.more, "aria-busy", "true");
    text(this.more, "Loading\u2026");
    await this.listing.more();
    attribute(this.more, "aria-busy", null);
    text(this.more, "Load more");
  }
}

/** What keeps the list from being current, and what can be done. */
class Banner {
  private readonly words = h("span");
  readonly retry = h("button", "", "Try again");
  readonly reload = h("button", "", "Reload the page");
  readonly node = h("div", "banner", h("p", "", icon("warn"), this.words), h("div", "buttons", this.retry, this.reload));

  constructor() {
    this.node.setAttribute("role", "alert");
    this.retry.type = this.reload.type = "button";
    this.node.hidden = true;
  }

  patch({ health, trouble, root }: Sessions, version: string): void {
    const isOther = health === "ready" && root !== null && root.version !== version;
    hidden(this.node, !isOther && (health === "ready" || health === "loading"));
    hidden(this.retry, isOther);
    hidden(this.reload, !isOther);
    if (isOther) text(this.words, `The server has ipybatch ${root.version}, this page ${version}.`);
    else if (health === "gone") text(this.words, "The server does not answer; what is shown may be old.");
    else if (health === "missing") text(this.words, "The server half is not enabled. Run: jupyter server extension enable ipybatch.server");
    else text(this.words, trouble);
  }
}

function skeleton(): HTMLElement {
  const node = h("div", "skeleton", ...Array.from({ length: 5 }, () => h("div", "", h("i"), h("i"))));
  node.setAttribute("aria-hidden", "true");
  return node;
}

/** Where there is nothing yet: how it begins. */
function emptyState(hooks: Hooks): HTMLElement {
  const create = h("button", "", icon("plus"), "New batch\u2026");
  create.type = "button";
  create.addEventListener("click", () => hooks.create());
  const code = h("pre", "", h("code", "", CODE));
  focusable(code);
  code.setAttribute("aria-label", "Example");
  const node = h(
    "div",
    "first",
    h("p", "", h("b", "", "No sessions yet.")),
    h("p", "", "A session that a notebook or script starts appears here, and stays when its tab is closed:"),
    code,
    h("p", "", "Or submit prompts or a table, without any code:"),
    create,
  );
  node.id = ownId("first");
  return node;
}
