// Feed: how the sessions are kept current.
//
//   Jupyter's events (one WebSocket, open anyway) --Change with a cursor--> fold; after a gap: GET
//   silence for `poll_s` --> GET, with an ETag              hidden, or nobody answers --> wait
import type { Change, Root, Schedule, SessionItem, SessionPage, Submission, TemplateList } from "../../src/wire";
import { Api, Gone, query, Refused, words } from "./api";
import type { Sessions } from "./sessions";

export const EVENTS = "https://ipybatch.readthedocs.io/events/sessions/v1";
const PAGE = 50;
const TICK_MS = 1000;
const PATIENCE_S = 15;
const UNTOLD_S = 3;
const LIVE = "running,paused";

export interface Surroundings {
  isVisible(): boolean;
  poll_s(): number;
  now_s(): number;
}

export class Feed {
  private cursor: number | null = null;
  private heardAt_s = -Infinity;
  private wait_s = 1;
  private asking: Promise<void> | null = null;
  private isStale = false;
  private ticker: ReturnType<typeof setInterval> | undefined;

  constructor(private readonly api: Api, private readonly sessions: Sessions, private readonly around: Surroundings) {}

  start(): void {
    this.ticker = setInterval(() => this.tick(), TICK_MS);
    void this.refresh();
  }

  stop(): void {
    clearInterval(this.ticker);
  }

  /** An event of the server's, whatever it is about. */
  readonly receive = (emission: { schema_id?: string }): void => {
    if (emission.schema_id !== EVENTS) return;
    const change = emission as unknown as Change;
    const gap = this.cursor !== null && change.cursor !== this.cursor + 1;
    this.cursor = change.cursor;
    this.heardAt_s = this.around.now_s();
    this.sessions.change(change, this.heardAt_s);
    if (gap || this.sessions.health === "gone") void this.refresh();
    else if (change.submissions) this.renew("queue");
    if (change.schedules) this.renew("schedules");
    if (change.templates) this.renew("templates");
    this.sessions.emit();
  };

  /** Ask for what is known to have changed. */
  renew(what: "queue" | "schedules" | "templates"): void {
    void this.try(() => this[what]()).then(() => this.sessions.emit());
  }

  /** Ask for everything that is shown; called while it is asked already, once more afterwards. */
  async refresh(): Promise<void> {
    if (this.asking) {
      this.isStale = true;
      return this.asking;
    }
    this.asking = this.list();
    await this.asking;
    this.asking = null;
    if (this.isStale) {
      this.isStale = false;
      await this.refresh();
    }
  }

  /** The next page of what is listed. */
  async more(): Promise<void> {
    const { next } = this.sessions;
    if (next === null) return;
    await this.try(async () => {
      this.sessions.asking();
      const page = await this.api.get<SessionPage>(this.path(next));
      if (this.sessions.next === next) this.sessions.page(page, false, this.around.now_s());
    });
    this.sessions.emit();
  }

  private async list(): Promise<void> {
    const { sessions, around } = this;
    await this.try(async () => {
      // Another version comes with another server: one that was not there for a while.
      if (sessions.root === null || sessions.health !== "ready") sessions.root = await this.api.get<Root>("/");
      const { filter } = sessions;
      const hasMore = sessions.isListed && sessions.shownPast.length > PAGE;
      sessions.asking();
      const beside = [this.queue(), this.schedules(), this.templates()];
      const asked = [`/sessions${query({ state: LIVE, limit: 100 })}`, this.path(null)].map((path) => this.api.get<SessionPage>(path));
      const [live, page] = (await Promise.all([...asked, ...beside])) as [SessionPage, SessionPage, ...unknown[]];
      sessions.lived(live.items, around.now_s());
      if (live.next === null) await this.settle(sessions.missed(live.items));
      if (filter !== sessions.filter) this.isStale = true;
      // Those who have loaded more keep their place: only what the first page has is renewed.
      else if (hasMore) sessions.lived(page.items, around.now_s());
      else sessions.page(page, true, around.now_s());
    });
    this.heardAt_s = around.now_s();
    sessions.emit();
  }

  /** See what waits; a journal of submissions that cannot be read is told by the list of sessions. */
  private async queue(): Promise<void> {
    const listed = await this.listed(this.api.all<Submission>(`/submissions${query({ waiting: 1, limit: 100 })}`));
    if (listed) this.sessions.queue = listed;
  }

  /** See what is submitted again and again. */
  private async schedules(): Promise<void> {
    const listed = await this.listed(this.api.all<Schedule>(`/schedules${query({ limit: 100 })}`));
    if (listed) this.sessions.schedules = listed;
  }

  /** See which templates are the user's own. */
  private async templates(): Promise<void> {
    const listed = await this.listed(this.api.get<TemplateList>("/templates"));
    if (listed) this.sessions.templates = listed.items.filter(({ kind }) => kind === "own");
  }

  private async listed<T>(asked: Promise<T>): Promise<T | null> {
    return asked.catch((error: unknown) => {
      if (error instanceof Gone) throw error;
      return null;
    });
  }

  /** See how those ended that were live, and are so no more, whether the first page has them or not. */
  private async settle(ids: string[]): Promise<void> {
    for (const id of ids) {
      const item = await this.api.get<SessionItem>(`/sessions/${id}`).catch((error: unknown) => {
        if (error instanceof Refused && error.status === 404) return null;
        throw error;
      });
      this.sessions.settle(id, item, this.around.now_s());
    }
  }

  private async try(what: () => Promise<void>): Promise<void> {
    const { sessions } = this;
    try {
      await what();
      [sessions.health, sessions.trouble, this.wait_s] = ["ready", "", 1];
    } catch (error) {
      sessions.trouble = words(error);
      sessions.health = error instanceof Gone ? "gone" : isMissing(error) ? "missing" : "refused";
      this.wait_s = Math.min(PATIENCE_S, 2 * this.wait_s);
    }
  }

  private path(cursor: string | null): string {
    const { name, state } = this.sessions.filter;
    return `/sessions${query({ limit: PAGE, name, state, cursor })}`;
  }

  /** A server that tells nothing by itself is asked more often while something is live. */
  private poll_s(): number {
    const poll_s = this.around.poll_s();
    return this.cursor === null && this.sessions.live.length ? Math.min(poll_s, UNTOLD_S) : poll_s;
  }

  private tick(): void {
    if (!this.around.isVisible() || this.asking) return;
    const silent_s = this.around.now_s() - this.heardAt_s;
    const wait_s = this.sessions.health === "ready" ? this.poll_s() : this.wait_s;
    if (wait_s > 0 && silent_s >= wait_s) void this.refresh();
  }
}

/** A server without the extension knows no such route, and says so in its own words. */
function isMissing(error: unknown): boolean {
  return error instanceof Refused && error.status === 404 && !error.problem.type?.includes("ipybatch");
}
