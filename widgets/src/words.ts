// Words: texts in a drawing, in nodes that are kept from one drawing to the next.
import { attribute, prefixed, svg, text } from "./dom";

export type Anchor = "start" | "middle" | "end";

export class Words {
  private used = 0;
  readonly node: SVGGElement;

  constructor(name: string) {
    this.node = svg("g", { class: prefixed(name) });
  }

  put(x: number, y: number, value: string, anchor: Anchor = "start", turned = false): void {
    const node = this.node.children[this.used] ?? this.node.appendChild(svg("text", {}));
    this.used += 1;
    text(node, value);
    attribute(node, "x", x.toFixed(1));
    attribute(node, "y", y.toFixed(1));
    attribute(node, "text-anchor", anchor);
    attribute(node, "transform", turned ? `rotate(-90 ${x.toFixed(1)} ${y.toFixed(1)})` : null);
  }

  /** Let go of the nodes that were not used this time. */
  done(): void {
    while (this.node.childElementCount > this.used) this.node.lastElementChild!.remove();
    this.used = 0;
  }
}

/** How wide words are, about: small figures and letters, and the wide characters of East Asia. */
export function widthOf(value: string, px = 5.9): number {
  return [...value].reduce((sum, character) => sum + (character > "\u2e80" ? 2 * px : px), 0);
}

/** A name as far as there is room: of `Batch 12` the number, else its beginning; nothing when that says too little. */
export function fitted(name: string, room: number): string {
  if (widthOf(name) <= room) return name;
  const number = /(?<=\s)\d+$/.exec(name)?.[0];
  if (number) return widthOf(number) <= room ? number : "";
  const kept = [...name].slice(0, Math.floor(room / 5.9) - 1).join("");
  return kept.length < 4 || widthOf(kept) > room ? "" : `${kept.trimEnd()}\u2026`;
}
