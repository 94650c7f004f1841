// Samples: sessions as the server tells of them, and a server that is a table of answers.
import { vi } from "vitest";
import { Api } from "../../lab/src/api";
import { Sessions } from "../../lab/src/sessions";
import { Verbs } from "../../lab/src/verbs";
import type { Change, Root, Schedule, SessionItem, Submission, TemplateItem } from "../../src/wire";
import { counts } from "../samples";

export function item(id: string, changes: Partial<SessionItem> = {}): SessionItem {
  return {
    id,
    name: `session ${id}`,
    state: "running",
    counts: counts({ completed: 6, pending: 4, total: 10 }),
    started: "2026-11-30T10:00:00Z",
    seconds: 60,
    eta_s: null,
    usd: null,
    reason: "",
    workload: "",
    kernel: null,
    notebook: null,
    breaker: null,
    waiting: "",
    outside_hours: false,
    where: "",
    can: ["pause", "cancel"],
    untaken: [],
    submission: null,
    group_word: "",
    ...changes,
  };
}

export function past(id: string, changes: Partial<SessionItem> = {}): SessionItem {
  return item(id, { state: "completed", counts: counts({ completed: 9, failed: 1, total: 10 }), can: ["retry_failed"], ...changes });
}

export function change(cursor: number, items: SessionItem[], removed: string[] = []): Change {
  return { cursor, items, removed, schedules: false, submissions: false, templates: false };
}

export function queued(id: string, changes: Partial<Submission> = {}): Submission {
  return {
    id,
    name: `batch ${id}`,
    template: "text",
    state: "PENDING",
    reason: "",
    created: "2026-11-30T10:00:00Z",
    ended: null,
    start_at: null,
    priority: "medium",
    request_count: 5,
    counts: counts({ pending: 5, total: 5 }),
    progress: 0,
    eta_s: null,
    starts: 0,
    groups: [],
    errors: [],
    results: [],
    credits: null,
    usd: null,
    session: null,
    links: {},
    waits_for: 1,
    ...changes,
  };
}

export function schedule(name: string, changes: Partial<Schedule> = {}): Schedule {
  return {
    every: "1d",
    at: "22:00",
    cron: null,
    zone: new Intl.DateTimeFormat().resolvedOptions().timeZone,
    start_at: null,
    until: null,
    misfire: "run",
    grace: "",
    paused: false,
    name,
    submission: { template: "refresh" },
    state: "waiting",
    question: "",
    next: ["2126-12-01T22:00:00"],
    last: null,
    note: "",
    created: "2026-11-30T10:00:00Z",
    links: {},
    ...changes,
  };
}

export function template(name: string, changes: Partial<TemplateItem> = {}): TemplateItem {
  return { name, kind: "own", based_on: "refresh", description: "", can: ["submit", "edit"], changed: null, error: "", reason: "", ...changes };
}

/** An answer with an ETag. */
export function tagged(value: object, etag: string): () => Response {
  return () => Response.json(value, { headers: { ETag: etag } });
}

export const root: Root = { version: "0.1.0", journal_schema: 7, limits: { max_requests: 20 }, templates: ["text", "refresh", "forecast"], links: {} };

type Answer = object | (() => Response);

/** A server that answers what is in the table, by "METHOD /path" without the query; whatever is not there is 404. */
export function server(table: Record<string, Answer>) {
  const asked: { path: string; init: RequestInit }[] = [];
  const ask = vi.fn((path: string, init: RequestInit = {}): Promise<Response> => {
    asked.push({ path, init });
    const answer = table[`${init.method ?? "GET"} ${path.split("?")[0]}`];
    if (typeof answer === "function") return Promise.resolve(answer());
    return Promise.resolve(answer ? Response.json(answer) : Response.json({ message: "there is no such session" }, { status: 404 }));
  });
  return { table, asked, ask, api: new Api(ask) };
}

export function batch(table: Record<string, Answer> = {}) {
  const made = server(table);
  const sessions = new Sessions();
  let at_s = 1000;
  const verbs = new Verbs(made.api, sessions, () => at_s);
  return { ...made, sessions, verbs, pass: (seconds: number) => (at_s += seconds), now_s: () => at_s };
}
