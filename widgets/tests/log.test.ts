import { describe, expect, it } from "vitest";
import { LogPiece } from "../src/log";
import type { Context } from "../src/piece";
import type { Level, LogLine } from "../src/schema";
import { Store } from "../src/store";
import { update } from "./samples";

function line(number: number, level: Level = "info", text = `line ${number}`): LogLine {
  return { number, at_s: 1000 + number, level, text, group: 0 };
}

function open(): { store: Store; piece: LogPiece; shown: () => string[]; tell: (...lines: LogLine[]) => void } {
  const store = new Store();
  const piece = new LogPiece({ store, redraw: () => piece.render() } as unknown as Context);
  let seq = 0;
  const tell = (...lines: LogLine[]): void => {
    seq += 1;
    store.fold(update(seq, { whole: seq === 1, log: lines }), 0);
    piece.render();
  };
  const shown = (): string[] => [...piece.node.querySelectorAll("li > span")].map((node) => node.textContent);
  return { store, piece, shown, tell };
}

describe("the log", () => {
  it("has the newest line on top, and keeps the nodes of the others", () => {
    const { piece, shown, tell } = open();
    tell(line(1), line(2));
    const first = piece.node.querySelector("li:last-child");
    tell(line(3));
    expect(shown()).toEqual(["line 3", "line 2", "line 1"]);
    expect(piece.node.querySelector("li:last-child")).toBe(first);
  });

  it("shows problems alone when asked to", () => {
    const { piece, shown, tell } = open();
    tell(line(1), line(2, "warn"), line(3, "good"), line(4, "bad"));
    piece.node.querySelectorAll<HTMLButtonElement>("button")[1]!.click();
    expect(shown()).toEqual(["line 4", "line 2"]);
    tell(line(5), line(6, "bad"));
    expect(shown()).toEqual(["line 6", "line 4", "line 2"]);
    piece.node.querySelectorAll<HTMLButtonElement>("button")[0]!.click();
    expect(shown()).toHaveLength(6);
  });

  it("draws all anew after a gap, or when it began anew", () => {
    const { shown, tell, store } = open();
    tell(line(1), line(2));
    tell(line(50));
    expect(shown()).toEqual(["line 50", "line 2", "line 1"]);
    store.fold(update(9, { whole: true, log: [line(1, "info", "again")] }), 0);
    tell();
    expect(shown()).toEqual(["again"]);
  });

  it("keeps no more lines than the store, and says when there are none", () => {
    const { piece, shown, tell } = open();
    tell();
    expect(piece.node.textContent).toContain("Nothing has happened yet.");
    tell(...Array.from({ length: 700 }, (_, index) => line(index + 1)));
    expect(shown()).toHaveLength(500);
    expect(shown()[0]).toBe("line 700");
  });

  it("shows markup as text", () => {
    const { piece, shown, tell } = open();
    tell(line(1, "bad", "<img src=x onerror=alert(1)>"));
    expect(shown()).toEqual(["<img src=x onerror=alert(1)>"]);
    expect(piece.node.querySelector("img")).toBeNull();
  });
});
