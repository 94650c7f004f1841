// Api: the REST routes of the server, with ETags, and errors in words.
import type { Problem } from "../../src/wire";

/** Ask a path below `/ipybatch/api/v1`; fails only where nobody answers. */
export type Ask = (path: string, init?: RequestInit) => Promise<Response>;

/** The server refused, and says why. */
export class Refused extends Error {
  constructor(readonly status: number, readonly problem: Partial<Problem>) {
    super(problem.message || problem.detail || `the server answered ${status}`);
  }
}

/** Nobody answered. */
export class Gone extends Error {
  constructor() {
    super("the server does not answer");
  }
}

/** What a person is told of an error; what to do stands behind it. */
export function words(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const step = error instanceof Refused ? error.problem.next_step : "";
  return step ? `${error.message}: ${step}` : error.message;
}

/** As many answers as are worth to be kept: those of what is looked at. */
const KEPT = 40;
/** A connection that dies without a word (a laptop that slept, another network) would be waited for without end. */
const PATIENCE_MS = 30_000;
/** What changes something is checked first, which may take a while. */
const CHANGE_PATIENCE_MS = 120_000;

export class Api {
  private readonly kept = new Map<string, { etag: string; value: unknown }>();

  constructor(private readonly ask: Ask) {}

  /** Get a path; what has not changed is not sent again, and is the same object. `about` names what the ETag is of. */
  async get<T>(path: string, about = path): Promise<T> {
    return within(PATIENCE_MS, (signal) => this.read<T>(path, about, signal));
  }

  /** Get all entries of a list, page after page. */
  async all<T>(path: string): Promise<T[]> {
    const found: T[] = [];
    let cursor: string | null = "";
    while (cursor !== null) {
      const page: { items: T[]; next: string | null } = await this.get(`${path}${cursor && `${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}`}`);
      found.push(...page.items);
      cursor = page.next ?? null;
    }
    return found;
  }

  /** Get a path, and the ETag that a change of just that names. */
  async tagged<T>(path: string): Promise<{ value: T; etag: string }> {
    const value = await this.get<T>(path);
    return { value, etag: this.kept.get(path)?.etag ?? "" };
  }

  private async read<T>(path: string, about: string, signal: AbortSignal): Promise<T> {
    const known = this.kept.get(about);
    const response = await this.answer(path, { signal, ...(known && { headers: { "If-None-Match": known.etag } }) });
    if (response.status === 304 && known) return known.value as T;
    const value = (await response.json()) as T;
    const etag = response.headers.get("ETag");
    this.kept.delete(about);
    if (etag) this.kept.set(about, { etag, value });
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value!);
    return value;
  }

  async post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
    return this.write("POST", path, body, headers);
  }

  /** Send a file as the body. */
  async send<T>(path: string, file: Blob, type: string): Promise<T> {
    const response = await this.answer(path, { method: "POST", body: file, headers: { "Content-Type": type } });
    return (await response.json()) as T;
  }

  async put<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
    return this.write("PUT", path, body, headers);
  }

  async delete(path: string, headers: Record<string, string> = {}): Promise<void> {
    await within(CHANGE_PATIENCE_MS, (signal) => this.answer(path, { method: "DELETE", headers, signal }));
  }

  private async write<T>(method: "POST" | "PUT", path: string, body: unknown, headers: Record<string, string>): Promise<T> {
    const init = { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } };
    return within(CHANGE_PATIENCE_MS, async (signal) => (await (await this.answer(path, { ...init, signal })).json()) as T);
  }

  private async answer(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await this.ask(path, init);
    } catch {
      throw new Gone();
    }
    if (response.ok || response.status === 304) return response;
    throw new Refused(response.status, await response.json().catch(() => ({})));
  }
}

/** Give up what neither comes nor fails; the body may stay away as well as the answer. */
async function within<T>(patience_ms: number, what: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      abort.abort();
      reject(new Gone());
    }, patience_ms);
  });
  return Promise.race([what(abort.signal), late]).finally(() => clearTimeout(timer));
}

/** A name as a part of a path; throws a sentence for one that no address can hold. */
export function part(name: string): string {
  if (name === "." || name === "..") throw new Error(`The name must be another one than \u201c${name}\u201d: in an address it is a folder`);
  return encodeURIComponent(name);
}

/** A query: what is empty is left out. */
export function query(values: Record<string, string | number | null>): string {
  const pairs = Object.entries(values).filter(([, value]) => value !== "" && value !== null);
  return pairs.length ? `?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}` : "";
}
