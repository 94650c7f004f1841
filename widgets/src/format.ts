// Format: numbers as the panel writes them. Units stand after a space; widths stay steady while they tick.

const COUNT = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** A figure that is not known, or not yet. */
export const NONE = "\u2013";

export function count(value: number): string {
  return COUNT.format(value);
}

/** Whole seconds and larger units, two at most: `48 s`, `1 m 48 s`, `2 h 05 m`, `3 d 04 h`. */
export function clock(seconds: number): string {
  if (!Number.isFinite(seconds)) return NONE;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return pair(whole, MINUTE, "m", 1, "s");
  if (whole < DAY) return pair(whole, HOUR, "h", MINUTE, "m");
  return pair(whole, DAY, "d", HOUR, "h");
}

function pair(whole: number, large: number, largeWord: string, small: number, smallWord: string): string {
  const rest = Math.floor((whole % large) / small);
  return `${Math.floor(whole / large)} ${largeWord} ${String(rest).padStart(2, "0")} ${smallWord}`;
}

const DEADLINE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

/** Whether a text is a time in UTC, such as `2026-12-02T08:10:00Z`. */
export function isDeadline(value: string): boolean {
  return DEADLINE.test(value);
}

/** What is left until a time in UTC: `47 h 59 m`; any other text as it is. */
export function countdown(value: string, now_s: number): string {
  if (!isDeadline(value)) return value;
  const left_s = Date.parse(value) / 1000 - now_s;
  return left_s > 0 ? hours(left_s) : "expired";
}

/** As a clock, but in hours up to three days: `47 h 59 m`. */
function hours(seconds: number): string {
  return seconds < DAY || seconds >= 3 * DAY ? clock(seconds) : pair(Math.floor(seconds), HOUR, "h", MINUTE, "m");
}

/** How long something took: milliseconds and tenths where they matter. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds > 0 && seconds < 0.0995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return seconds < 59.95 ? `${seconds.toFixed(1)} s` : clock(Math.round(seconds));
}

const UNITS: [number, string][] = [[DAY, "d"], [HOUR, "h"], [MINUTE, "m"], [1, "s"]];

/** A guess, rounded so that it does not pretend or jitter. */
function guess(seconds: number): string {
  const step = seconds < 20 ? 1 : seconds < 600 ? 5 : seconds < HOUR ? MINUTE : 5 * MINUTE;
  const rounded = Math.max(1, Math.round(seconds / step) * step);
  if (rounded >= HOUR || rounded % MINUTE !== 0) return clock(rounded);
  return `${rounded / MINUTE} m`;
}

/** `1 m 20 s`, or `1 to 3 m` when best and worst differ by more than a quarter. */
export function remaining(low: number | null, high: number | null): string {
  const worst = high ?? low;
  if (worst === null) return "";
  const best = low ?? worst;
  if (worst - best <= worst / 4) return guess((best + worst) / 2);
  const [size, word] = UNITS.find(([size]) => worst >= 1.5 * size) ?? [1, "s"];
  const [from, to] = [Math.floor(best / size), Math.ceil(worst / size)];
  return from === 0 ? `at most ${to} ${word}` : `${from} to ${to} ${word}`;
}

/** Count the seconds of `next batch in 12 s` or `...: 12 s left` down by what has passed since it was sent. */
export function countedDown(sentence: string, passed: number): string {
  return sentence.replace(/(\bin |: )(\d+) s\b/, (_, before: string, seconds: string) => {
    return `${before}${clock(Math.ceil(Number(seconds) - passed))}`;
  });
}

const SINCE = /(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) so far/g;
const UNTIL = /\bin (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)/g;

/** A text of a fact, counted at Unix time `now_s`: `12 s so far`; `in 47 h 59 m`, and `expired` from then on. */
export function moments(value: string, now_s: number): string {
  const since = (at: string): string => clock(now_s - Date.parse(at) / 1000);
  const left_s = (at: string): number => Date.parse(at) / 1000 - now_s;
  return value
    .replace(SINCE, (_, at: string) => `${since(at)} so far`)
    .replace(UNTIL, (_, at: string) => (left_s(at) > 0 ? `in ${hours(left_s(at))}` : "expired"));
}

export interface RateUnit {
  per_s: number;
  word: string;
  name: string;
}

/** The unit in which `fastest` (per second) is a number one can read. */
export function rateUnit(fastest: number): RateUnit {
  if (fastest >= 1 || fastest <= 0) return { per_s: 1, word: "/s", name: "second" };
  return fastest >= 1 / MINUTE ? { per_s: MINUTE, word: "/min", name: "minute" } : { per_s: HOUR, word: "/h", name: "hour" };
}

/** Three figures: `0.50`, `8.2`, `38.4`, `412`, `12,000`; a round number stays round. */
export function figure(value: number): string {
  if (Number.isInteger(value) || value >= 99.95) return count(Math.round(value));
  return value.toFixed(value < 1 ? 2 : 1);
}

/** A limit: it does not tick, so it is as short as it can be: `40`, `66.7`, `240K`, `1M`. */
export function limit(value: number): string {
  return value < 100_000 ? SHORT.format(value) : COMPACT.format(value);
}

/** The span of a window as it is said: `s`, `2 s`, `5 min`, `h`, `day`. */
export function span(seconds: number): string {
  const units: [number, string][] = [[DAY, "day"], [HOUR, "h"], [MINUTE, "min"], [1, "s"]];
  const [size, word] = units.find(([size]) => seconds >= size && seconds % size === 0) ?? [1, "s"];
  return seconds === size ? word : `${figure(seconds / size)} ${word}`;
}

/** The same in words: `per second`, `per 5 min`, `per hour`. */
export function perWords(seconds: number): string {
  const names: Record<string, string> = { s: "second", min: "minute", h: "hour" };
  const word = span(seconds);
  return `per ${names[word] ?? word}`;
}

export function usd(value: number): string {
  const digits = value !== 0 && Math.abs(value) < 0.1 ? 4 : 2;
  return value.toLocaleString("en-US", { style: "currency", currency: "USD", minimumFractionDigits: digits });
}

const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Unix time as the clock on this machine's wall: `14:03:27`. */
export function time(unix_s: number): string {
  return TIME.format(unix_s * 1000);
}
