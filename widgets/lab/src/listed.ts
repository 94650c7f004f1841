// Listed: nodes of a list, one for each entry, that stay with their entry and keep its order.
import { h } from "../../src/dom";

interface Listable {
  readonly item: { readonly id: string };
}

interface Shown<E> {
  readonly node: HTMLElement;
  patch(entry: E, now_s: number): void;
}

export class Listed<E extends Listable> {
  private readonly shown = new Map<string, Shown<E>>();
  readonly node = h("ul", "list");

  constructor(label: string, private readonly make: () => Shown<E>) {
    this.node.setAttribute("aria-label", label);
    // Safari's screen reader takes a list without marks for none.
    this.node.setAttribute("role", "list");
  }

  patch(entries: E[], now_s: number): void {
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
