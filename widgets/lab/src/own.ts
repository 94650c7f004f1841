// Own: a template of the user's own and the form: what it fills in, and what is left to say of a request or to save.
//
// Rule: what stands in the form is what is submitted. A request names the template while that can be said by it; a
// value that was taken out cannot, and the request then names what the template is built on.
import type { SubmissionRequest, Template } from "../../src/wire";
import { EMPTY, kindOf, type Draft } from "./draft";

type Params = Record<string, unknown>;
type Filled = Pick<Draft, "lane" | "model" | "horizon" | "by" | "priority" | "more">;

/** By the parameter that a field of its own shows: whether that field can show a value. */
const SHOWN: Record<string, (value: unknown) => boolean> = {
  lane: (value) => ["batch", "online", "flex", "auto"].includes(value as string),
  model: (value) => typeof value === "string",
  horizon: (value) => Number.isInteger(value),
  by: (value) => value === "site" || value === "size",
};
const OF_KIND = { prompts: ["lane", "model"], table: ["horizon", "by"], ids: [] };
/** What holds where nobody says anything. */
const DEFAULTS: Params = { lane: EMPTY.lane, horizon: Number(EMPTY.horizon), by: EMPTY.by };

/** What the fields show of a template; null for none. */
export function fieldsOf(own: Template | null): Filled {
  const more = { ...own?.params };
  const { lane, model, horizon, by } = EMPTY;
  const filled: Filled = { lane, model, horizon, by, priority: own?.priority ?? EMPTY.priority, more: "" };
  for (const name of own ? OF_KIND[kindOf(own.based_on)] : []) {
    if (!(name in more) || !SHOWN[name]!(more[name])) continue;
    Object.assign(filled, { [name]: String(more[name]) });
    delete more[name];
  }
  return { ...filled, more: Object.keys(more).length ? JSON.stringify(more, null, 2) : "" };
}

/** A request, in which everything is said, by a template: only what that does not say. */
export function requestBy(name: string, own: Template, request: SubmissionRequest, isRepeated: boolean): SubmissionRequest {
  const { params = {}, priority = null, start_at = null, zone = null, notify = null, ...rest } = request;
  // Of what is repeated the schedule says when.
  const isDropped = (own.start_at && !start_at && !isRepeated) || (own.notify && !notify) || keysOf(own).some((key) => !(key in params));
  if (isDropped) return request;
  const said = paramsOver(own, params);
  return {
    ...rest,
    template: name,
    params: alike(said, own.params ?? {}) ? {} : said,
    ...(priority === (own.priority ?? EMPTY.priority) ? {} : { priority }),
    ...(isRepeated || alike([start_at, start_at && zone], [own.start_at ?? null, own.start_at && (own.zone ?? null)]) ? {} : { start_at, zone }),
    ...(alike(notify, own.notify ?? null) ? {} : { notify }),
  };
}

/** What is saved of a request: over the template that it is by, or as a new one. */
export function templateOf(request: SubmissionRequest, own: Template | null, description: string): Template {
  const { template, params = {}, priority = null, start_at = null, zone = null, notify = null } = request;
  const apart = { description, start_at, zone: start_at ? zone : (own?.zone ?? null), notify };
  if (!own) return { based_on: template, params, priority, ...apart };
  return { ...own, ...apart, params: paramsOver(own, params), priority: own.priority || priority !== EMPTY.priority ? priority : null };
}

/** Whether two values say the same, in whatever order. */
export function alike(one: unknown, other: unknown): boolean {
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return (one ?? null) === (other ?? null);
  const keys = new Set([...Object.keys(one), ...Object.keys(other)]);
  return Array.isArray(one) === Array.isArray(other) && [...keys].every((key) => alike((one as Params)[key], (other as Params)[key]));
}

/** Parameters without what holds anyway, unless the template says it. */
function paramsOver(own: Template, params: Params): Params {
  const known = new Set(keysOf(own));
  return Object.fromEntries(Object.entries(params).filter(([key, value]) => known.has(key) || !alike(value, DEFAULTS[key])));
}

function keysOf(own: Template): string[] {
  return Object.keys(own.params ?? {});
}
