// Listed: nodes of a list, one for each entry, that stay with their entry and keep its order.
import { h } from "../../src/dom";
import type { Entry } from "./sessions";

interface Shown {
  readonly node: HTMLElement;
  patch(entry: Entry, now_s: number): void;
}

export class Listed {
  private readonly shown = new Map<string, Shown>();
  readonly node = h("ul", "list");

  constructor(label: string, private readonly make: () => Shown) {
    this.node.setAttribute("aria-label", label);
    // Safari's screen reader takes a list without marks for none.
    this.node.setAttribute("role", "list");
  }

  patch(entries: Entry[], now_s: number): void {
    const ids = new Set(entries.map(({ item }) => item.id));
    for (const [id, { node }] of this.shown) {
      if (ids.has(id)) continue;
      node.remove();
      this.shown.delete(id);
    }
    entries.forEach((entry, index) => {
      const shown = this.shown.get(entry.item.id) ?? this.make();
      this.shown.set(entry.item.id, shown);
      if (this.node.children[index] !== shown.node) this.node.insertBefore(shown.node, this.node.children[index] ?? null);
      shown.patch(entry, now_s);
    });
  }
}
