// Draft: what is about to be submitted, and the request it makes.
import type { SubmissionRequest, Template, UrgencyWord } from "../../src/wire";

/** What a template is made of. */
export type Kind = "prompts" | "ids" | "table";

export interface Draft {
  template: string;
  /** The shipped template that one of the user's own is built on; "" for a shipped one. */
  base: string;
  /** What one of the user's own says; null for a shipped one, and until it has come. */
  own: Template | null;
  name: string;
  priority: UrgencyWord;
  /** Prompts or ids, one a line. */
  lines: string;
  /** A picture that goes with every prompt, as base64; "" for none. */
  image: string;
  upload: string;
  lane: string;
  model: string;
  horizon: string;
  by: string;
  /** More parameters, as JSON. */
  more: string;
}

export const EMPTY: Draft = {
  template: "",
  base: "",
  own: null,
  name: "",
  priority: "medium",
  lines: "",
  image: "",
  upload: "",
  lane: "batch",
  model: "",
  horizon: "30",
  by: "site",
  more: "",
};

const TITLES: Record<string, string> = {
  text: "Texts",
  "text-to-image": "Images from texts",
  character: "Characters",
  food: "Food",
  product: "Products",
  refresh: "Library refresh",
  forecast: "Forecast",
};

export function isShipped(template: string): boolean {
  return template in TITLES;
}

export function titleOf(template: string): string {
  return TITLES[template] ?? template;
}

export function kindOf(template: string): Kind {
  return template === "forecast" ? "table" : template === "refresh" ? "ids" : "prompts";
}

export function linesOf(text: string): string[] {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

/** Whether a picture may go with the prompts of a shipped template. */
export function takesPicture(template: string): boolean {
  return kindOf(template) === "prompts" && !template.startsWith("text");
}

/** Whether there is enough to ask what it would take. */
export function isAskable({ template, base, own, lines, upload }: Draft): boolean {
  const kind = kindOf(base || template);
  if (base && !own) return false;
  return template !== "" && (kind === "ids" || (kind === "table" ? upload !== "" : linesOf(lines).length > 0));
}

/** The request, in which everything is said; throws a sentence where the parameters are no JSON object. */
export function requestOf(draft: Draft): SubmissionRequest {
  const { template, base, name, priority } = draft;
  const kind = kindOf(base || template);
  const more = readMore(draft.more);
  const request: SubmissionRequest = { template: base || template, priority, ...(name.trim() ? { name: name.trim() } : {}) };
  if (kind === "table") return { ...request, upload: draft.upload, params: { horizon: Number(draft.horizon), by: draft.by, ...more } };
  const lines = linesOf(draft.lines);
  if (kind === "ids") return { ...request, ...(lines.length ? { requests: lines.map(idOf) } : {}), params: more };
  const params = { lane: draft.lane, ...(draft.model.trim() ? { model: draft.model.trim() } : {}), ...more };
  const image = takesPicture(request.template) ? draft.image : "";
  return { ...request, requests: lines.map((line) => promptOf(line, image)), params };
}

function readMore(text: string): Record<string, unknown> {
  if (!text.trim()) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new Error('Parameters must be a JSON object, such as {"temperature": 0.4}');
}

/** A line that is a JSON object is taken as one, so that a file of requests can be pasted. */
function promptOf(line: string, image: string): unknown {
  const own = objectOf(line);
  if (own) return image && !("imageBase64" in own) ? { ...own, imageBase64: image } : own;
  return image ? { prompt: line, imageBase64: image } : line;
}

function idOf(line: string): unknown {
  return objectOf(line) ?? (/^\d+$/.test(line) ? Number(line) : line);
}

function objectOf(line: string): Record<string, unknown> | null {
  if (!line.startsWith("{")) return null;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return null;
  }
}
