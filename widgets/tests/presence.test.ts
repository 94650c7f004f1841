import { beforeEach, describe, expect, it } from "vitest";
import { Presence } from "../src/presence";
import { update } from "./samples";

const said: string[] = [];
let isBusy = false;
let presence: Presence;
let now_s = 0;

/** Let seconds pass, in each of which the page looks; `quiet_s` as the store counts it. */
function pass(seconds: number, quiet_s = 0): void {
  for (let second = 0; second < seconds; second += 1) presence.tick((now_s += 1), quiet_s);
}

const answered = (): void => presence.answered(update(1, { whole: true, pages: [presence.page] }));
const beat = (always = false): void =>
  presence.answered({ kind: "beat", at_s: 0, pages: [presence.page], always: always ? [presence.page] : [] });

beforeEach(() => {
  said.length = 0;
  isBusy = false;
  now_s = 100;
  presence = new Presence({
    first: ({ kind }) => said.push(kind),
    second: ({ kind }) => said.push(`${kind} by the second road`),
    isBusy: () => isBusy,
  });
});

describe("a page", () => {
  it("says Hello, Here every twenty seconds, and Bye", () => {
    presence.turn(true, now_s);
    answered();
    beat(true);
    for (let count = 0; count < 3; count += 1) {
      pass(20);
      beat();
    }
    expect(said).toEqual(["hello", "here", "here", "here"]);
    presence.turn(false, now_s);
    pass(100);
    expect(said.at(-1)).toBe("bye");
  });

  it("that is not answered says it by the second road as well, less and less often", () => {
    presence.turn(true, now_s);
    pass(2);
    expect(said).toEqual(["hello", "hello", "hello by the second road"]);
    pass(3);
    expect(said).toHaveLength(3);
    pass(60);
    expect(said.length).toBeLessThanOrEqual(3 + 2 * 5);
  });

  it("takes a beat for no answer to Hello: the state is still to come", () => {
    presence.turn(true, now_s);
    beat();
    pass(2);
    expect(said).toEqual(["hello", "hello", "hello by the second road"]);
  });

  it("is told that it was heard by the next changes, too", () => {
    presence.turn(true, now_s);
    answered();
    pass(2);
    presence.answered(update(2, { pages: [presence.page], always: [presence.page] }));
    pass(10);
    expect(said).toEqual(["hello", "here"]);
  });

  it("says Here soon, and soon after a cell has begun, until it was heard past one", () => {
    presence.turn(true, now_s);
    answered();
    pass(2);
    expect(said.splice(0)).toEqual(["hello", "here"]);
    beat();
    pass(10);
    isBusy = true;
    pass(3);
    expect(said.splice(0)).toEqual(["here"]);
    beat();
    pass(10);
    isBusy = false;
    pass(1);
    isBusy = true;
    pass(3);
    expect(said.splice(0)).toEqual(["here"]);
    pass(2);
    expect(said.splice(0)).toEqual(["here", "here by the second road"]);
    beat(true);
    isBusy = false;
    pass(3);
    isBusy = true;
    pass(10);
    expect(said).toEqual([]);
  });

  it("that hears nothing of a session that runs asks", () => {
    presence.turn(true, now_s);
    answered();
    pass(1, 3);
    expect(said).toEqual(["hello", "hello"]);
  });

  it("asks once for what it missed, not a flood", () => {
    presence.turn(true, now_s);
    answered();
    for (let count = 0; count < 9; count += 1) presence.missed(now_s + 3);
    expect(said).toEqual(["hello", "resync"]);
  });
});
