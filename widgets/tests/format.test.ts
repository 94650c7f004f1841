import { expect, it } from "vitest";
import * as format from "../src/format";

it.each([
  [0, "0 s"], [48.9, "48 s"], [60, "1 m 00 s"], [108, "1 m 48 s"], [3599, "59 m 59 s"], [7500, "2 h 05 m"],
  [273600, "3 d 04 h"], [-3, "0 s"], [Number.NaN, "\u2013"],
])("writes a clock at %s as %s", (seconds, words) => expect(format.clock(seconds)).toBe(words));

it.each([
  [0, "0.0 s"], [0.0004, "1 ms"], [0.041, "41 ms"], [0.2, "0.2 s"], [14.16, "14.2 s"], [59.94, "59.9 s"],
  [59.96, "1 m 00 s"], [300, "5 m 00 s"],
])("writes a duration of %s as %s", (seconds, words) => expect(format.duration(seconds)).toBe(words));

it.each([
  [80, 82, "1 m 20 s"], [118, 123, "2 m"], [12.2, 12.9, "13 s"], [40, 55, "40 to 55 s"], [190, 320, "3 to 6 m"],
  [10, 130, "at most 3 m"], [7000, 15000, "1 to 5 h"], [0, 0, "1 s"], [null, 61, "1 m"], [null, null, ""],
])("writes what is left between %s and %s as %s", (low, high, words) => {
  expect(format.remaining(low, high)).toBe(words);
});

it.each([
  ["next batch in 12 s", 3.2, "next batch in 9 s"],
  ["next retry in 95 s", 1, "next retry in 1 m 34 s"],
  ["the service asked us to slow down: 30 s left", 10.5, "the service asked us to slow down: 20 s left"],
  ["next batch in 2 s", 9, "next batch in 0 s"],
  ["all 200 in 5 min are used", 9, "all 200 in 5 min are used"],
])("counts %s down by %s s", (sentence, passed, words) => {
  expect(format.countedDown(sentence, passed)).toBe(words);
});

it.each([[40, "/s"], [1, "/s"], [0.667, "/min"], [0.001, "/h"], [0, "/s"]])("reads a rate of %s in %s", (rate, word) => {
  expect(format.rateUnit(rate).word).toBe(word);
});

it.each([[0.5, "0.50"], [8.21, "8.2"], [38.42, "38.4"], [99.96, "100"], [12000.4, "12,000"], [7, "7"]])(
  "writes the figure %s as %s",
  (value, words) => expect(format.figure(value)).toBe(words),
);

it.each([[40.002, "40"], [66.67, "66.7"], [2400, "2,400"], [240000, "240K"], [1e6, "1M"]])(
  "writes the limit %s as %s",
  (value, words) => expect(format.limit(value)).toBe(words),
);

it.each([[1, "s"], [2, "2 s"], [300, "5 min"], [60, "min"], [3600, "h"], [86400, "day"], [90, "90 s"], [0.5, "0.50 s"]])(
  "writes a window of %s s as %s",
  (seconds, words) => expect(format.span(seconds)).toBe(words),
);

it.each([[0.84, "$0.84"], [0.0042, "$0.0042"], [0, "$0.00"], [1234.5, "$1,234.50"]])("writes %s USD as %s", (value, words) => {
  expect(format.usd(value)).toBe(words);
});

it("separates thousands", () => expect(format.count(1000000)).toBe("1,000,000"));

it.each([
  ["2026-12-02T08:10:00Z", 0, "48 h 00 m"], ["2026-12-02T08:10:00Z", 600, "47 h 50 m"],
  ["2026-12-02T08:10:00Z", 171_000, "30 m 00 s"], ["2026-12-02T08:10:00Z", 172_800, "expired"],
  ["2026-12-09T08:10:00Z", 0, "9 d 00 h"], ["batches/2026", 0, "batches/2026"],
])("counts %s down after %s s to %s", (value, passed, words) => {
  expect(format.countdown(value, Date.parse("2026-11-30T08:10:00Z") / 1000 + passed)).toBe(words);
});
