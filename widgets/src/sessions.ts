// Sessions: several sessions under each other, each in a line that opens; what runs comes first.
//
//   kernel --List, and what it tells each session--> one widget --> a Panel for each, which knows no list
//
// Rule: all of them share one message of the widget. To each panel it looks as if it had a widget of its own.
//
// Lines that change places under the pointer are pressed by mistake: while it is over the list, or the keyboard in it,
// what is there stays where it is, and what is new comes below.
import type { AnyModel } from "@anywidget/types";
import { h, hidden } from "./dom";
import type { FromBrowser, List } from "./schema";

export interface Traits {
  initial: string;
  panel_id: string;
  view: string;
  compact?: boolean;
  /** Whether it is one of several sessions, of which no more than a line is told before it is opened. */
  is_part?: boolean;
}

/** Show a panel of `model` in `el`; returns what takes it away. */
type Mount = (model: AnyModel<Traits>, el: HTMLElement) => () => void;
type Handler = (message: unknown, buffers: DataView[]) => void;

const decoder = new TextDecoder();

/** The model of one session: a part of that of the list. */
class Part {
  private readonly handlers = new Set<Handler>();

  constructor(private readonly whole: AnyModel<Traits>, readonly id: string, private readonly initial: string) {}

  get widget_manager(): unknown {
    return this.whole.widget_manager;
  }

  get(name: keyof Traits): unknown {
    return { initial: this.initial, panel_id: this.id, view: "panel", compact: true, is_part: true }[name];
  }

  on(event: string, handler: Handler): void {
    if (event === "msg:custom") this.handlers.add(handler);
    else this.whole.on(event as "msg:custom", handler);
  }

  off(event: string, handler: Handler): void {
    if (event === "msg:custom") this.handlers.delete(handler);
    else this.whole.off(event as "msg:custom", handler);
  }

  send(message: FromBrowser): void {
    this.whole.send({ kind: "within", panel: this.id, message });
  }

  receive(buffer: DataView): void {
    for (const handler of this.handlers) handler({}, [buffer]);
  }
}

interface Row {
  part: Part;
  node: HTMLElement;
  close(): void;
}

class SessionList {
  private readonly rows = new Map<string, Row>();
  private readonly list = h("ol", "sessions");
  private readonly empty = h("p", "none", "No session has been made in this kernel yet.");
  private readonly root = h("div", "", this.empty, this.list);
  private order: string[] = [];

  constructor(private readonly model: AnyModel<Traits>, private readonly mount: Mount) {
    this.root.className = "ipybatch";
    this.list.setAttribute("aria-label", "Sessions");
    this.root.addEventListener("pointerleave", () => this.arrange());
    this.root.addEventListener("focusout", ({ relatedTarget }) => {
      if (!this.root.contains(relatedTarget as Node | null)) queueMicrotask(() => this.arrange());
    });
  }

  show(el: HTMLElement): void {
    el.append(this.root);
    const initial = this.model.get("initial");
    if (initial) this.fold(JSON.parse(initial) as List);
    this.model.on("msg:custom", this.receive);
    this.model.send({ kind: "hello", view: "" });
  }

  hide(): void {
    this.model.off("msg:custom", this.receive);
    for (const row of this.rows.values()) row.close();
    this.rows.clear();
    this.root.remove();
  }

  private readonly receive = (_: unknown, [first, ...told]: DataView[]): void => {
    const list = JSON.parse(decoder.decode(first)) as List;
    this.fold(list);
    list.told.forEach((id, index) => this.rows.get(id)?.part.receive(told[index]!));
  };

  private fold({ panels, initial }: List): void {
    this.order = panels;
    for (const [id, row] of this.rows) if (!panels.includes(id)) this.drop(id, row);
    for (const id of panels) if (!this.rows.has(id)) this.add(id, initial[id] ?? "");
    hidden(this.empty, panels.length > 0);
    this.arrange();
  }

  private add(id: string, initial: string): void {
    const node = h("li");
    const part = new Part(this.model, id, initial);
    this.list.append(node);
    this.rows.set(id, { part, node, close: this.mount(part as unknown as AnyModel<Traits>, node) });
  }

  private drop(id: string, row: Row): void {
    row.close();
    row.node.remove();
    this.rows.delete(id);
  }

  private arrange(): void {
    if (this.root.matches(":hover") || this.root.contains(document.activeElement)) return;
    this.order.forEach((id, index) => {
      const { node } = this.rows.get(id)!;
      if (this.list.children[index] !== node) this.list.insertBefore(node, this.list.children[index] ?? null);
    });
  }
}

/** Show the list of `model` in `el`; returns what takes it away. */
export function showSessions(model: AnyModel<Traits>, el: HTMLElement, mount: Mount): () => void {
  const list = new SessionList(model, mount);
  list.show(el);
  return () => list.hide();
}
