import { describe, expect, it, vi } from "vitest";
import { Api, Gone, query, Refused, words } from "../../lab/src/api";
import { server } from "./samples";

describe("asking", () => {
  it("sends the ETag it has, and gives the same object for what has not changed", async () => {
    const { api, asked, table } = server({ "GET /sessions": () => new Response('{"items": []}', { headers: { ETag: '"a"' } }) });
    const first = await api.get("/sessions");
    table["GET /sessions"] = () => new Response(null, { status: 304 });
    expect(await api.get("/sessions")).toBe(first);
    expect(asked[1]!.init.headers).toEqual({ "If-None-Match": '"a"' });
  });

  it("tells what was refused in the server's words, with what to do", async () => {
    const problem = { message: "limit must be from 1 to 100", next_step: "ask for less" };
    const { api } = server({ "GET /sessions": () => Response.json(problem, { status: 422 }) });
    const error = await api.get("/sessions?limit=0").catch((error: unknown) => error);
    expect(error).toBeInstanceOf(Refused);
    expect(words(error)).toBe("limit must be from 1 to 100: ask for less");
  });

  it("tells an answer that is no problem document by its status", async () => {
    const { api } = server({ "GET /sessions": () => new Response("<html>", { status: 502 }) });
    await expect(api.get("/sessions")).rejects.toThrow("the server answered 502");
  });

  it("is told apart from nobody being there", async () => {
    const api = new Api(() => Promise.reject(new TypeError("Failed to fetch")));
    await expect(api.get("/")).rejects.toBeInstanceOf(Gone);
  });

  it("is given up where neither an answer comes nor an error, or no body", async () => {
    vi.useFakeTimers();
    const never = new Promise<never>(() => undefined);
    const stuck = Object.assign(new Response("{}"), { json: () => never });
    for (const answer of [never, Promise.resolve(stuck)]) {
      const signals: AbortSignal[] = [];
      const api = new Api((_, init) => (signals.push(init!.signal!), answer));
      const said = expect(api.get("/")).rejects.toBeInstanceOf(Gone);
      await vi.advanceTimersByTimeAsync(60_000);
      await said;
      expect(signals[0]!.aborted).toBe(true);
    }
    vi.useRealTimers();
  });

  it("is given up where a change is not answered", async () => {
    vi.useFakeTimers();
    const signals: AbortSignal[] = [];
    const api = new Api((_, init) => (signals.push(init!.signal!), new Promise<never>(() => undefined)));
    for (const change of [() => api.post("/", {}), () => api.put("/", {}), () => api.delete("/")]) {
      const said = expect(change()).rejects.toBeInstanceOf(Gone);
      await vi.advanceTimersByTimeAsync(200_000);
      await said;
      expect(signals.pop()!.aborted).toBe(true);
    }
    vi.useRealTimers();
  });

  it("lists all, page after page", async () => {
    const pages: Record<string, object> = { "/schedules?limit=2": { items: [1, 2], next: "a&b" }, "/schedules?limit=2&cursor=a%26b": { items: [3], next: null } };
    const api = new Api((path) => Promise.resolve(Response.json(pages[path])));
    expect(await api.all("/schedules?limit=2")).toEqual([1, 2, 3]);
  });

  it("sends a table as the body, by its type", async () => {
    const { api, asked } = server({ "POST /uploads": { id: "u" } });
    const file = new Blob(["a,b"]);
    expect(await api.send("/uploads", file, "text/csv")).toEqual({ id: "u" });
    expect(asked[0]!.init).toMatchObject({ method: "POST", body: file, headers: { "Content-Type": "text/csv" } });
  });
});

it("leaves what is empty out of a query", () => {
  expect(query({ limit: 50, name: "", cursor: null, state: "a b" })).toBe("?limit=50&state=a+b");
  expect(query({ name: "" })).toBe("");
});
