// Panel: the one entry. Messages fold into the store; the view is drawn from the store, at most once a frame.
//
//   kernel --Update--> store --frame--> view          view --press--> commands --Command--> kernel
//
// A view that is out of sight says Bye, and Hello when it is seen again: the kernel sends nothing meanwhile. A Hello
// is answered by a whole update; one that is not is said again, since a page may speak before its kernel listens.
import type { AnyModel, RenderProps } from "@anywidget/types";
import { Commands } from "./commands";
import { h } from "./dom";
import type { FromBrowser, FromKernel, Update, ViewName } from "./schema";
import { Store } from "./store";
import type { Kernel } from "./subshell";
import { View } from "./view";

const ANSWER_S = 2;
const PATIENCE_S = 60;
const TICK_MS = 1000;
const RARELY_S = 30; // between two looks at a session that has ended: results may be about to expire
const MOMENT_S = 2.5;
const REPLACED_MS = 50;

const decoder = new TextDecoder();

interface Traits {
  initial: string;
  panel_id: string;
  view: string;
}

class Panel {
  private readonly store: Store;
  private readonly commands: Commands;
  private readonly view: View;
  private readonly root = h("div");
  private watcher: IntersectionObserver | null = null;
  private renderedAt_s = 0;
  private ticker: ReturnType<typeof setInterval> | undefined;
  private readonly page = crypto.getRandomValues(new Uint32Array(2)).join("");
  private visible = true;
  private frame = 0;
  private seen = false;
  private shownAt_s = -Infinity;
  private askedAt_s = -Infinity;
  /** How long to wait for the answer of what was asked last; 0: it has come. */
  private wait_s = 0;

  constructor(private readonly model: AnyModel<Traits>, known: Panel | undefined) {
    this.store = known?.store ?? new Store();
    const commands = (this.commands = new Commands({
      panelId: () => model.get("panel_id"),
      send: (command) => this.send(command),
      kernel: () => (model.widget_manager as { kernel?: Kernel | null } | undefined)?.kernel ?? null,
      say: (text) => this.say(text),
    }));
    this.view = new View((model.get("view") || "panel") as ViewName, {
      store: this.store,
      press: (name, ...values) => commands.press(name, ...values),
      isPending: (name) => commands.isPending(name),
      say: (words) => this.say(words),
      redraw: () => this.schedule(),
      unix_s: () => Date.now() / 1000,
    });
    this.root.className = "ipybatch";
    this.root.append(this.view.node);
    const initial = model.get("initial");
    if (initial && !known) this.store.fold(JSON.parse(initial) as Update, now_s());
  }

  /** Whether its place was taken away: it is closed, or was in the page a moment ago (a cell scrolled away comes back). */
  get isFree(): boolean {
    return !this.watcher || (!this.root.isConnected && now_s() - this.shownAt_s < MOMENT_S);
  }

  /** Move into `el`, and begin to live there. */
  show(el: HTMLElement): void {
    el.append(this.root);
    this.shownAt_s = now_s();
    if (this.watcher) return;
    this.model.on("msg:custom", this.receive);
    document.addEventListener("visibilitychange", this.turn);
    addEventListener("pagehide", this.leave);
    this.watcher = new IntersectionObserver(([entry]) => (this.visible = entry?.isIntersecting ?? true));
    this.watcher.observe(this.root);
    this.ticker = setInterval(() => this.tick(), TICK_MS);
    this.view.render(now_s());
    this.look(!document.hidden);
  }

  /** Leave `el`, unless it has moved elsewhere by now. */
  hide(el: HTMLElement): void {
    if (this.root.parentElement !== el) return;
    this.model.off("msg:custom", this.receive);
    document.removeEventListener("visibilitychange", this.turn);
    removeEventListener("pagehide", this.leave);
    this.watcher?.disconnect();
    this.watcher = null;
    clearInterval(this.ticker);
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.commands.close();
    this.root.remove();
    this.seen = false;
    this.leave();
  }

  private readonly turn = (): void => this.look(!document.hidden && this.root.isConnected);

  private look(seen: boolean): void {
    const turned = seen !== this.seen;
    this.seen = seen;
    if (turned && !seen) this.leave();
    else if (seen && (turned || (this.wait_s && now_s() - this.askedAt_s > this.wait_s))) this.ask("hello", turned);
  }

  private readonly leave = (): void => {
    this.trySend({ kind: "bye", view: this.page });
  };

  private readonly receive = (_: unknown, buffers: DataView[]): void => {
    const message = JSON.parse(decoder.decode(buffers[0])) as FromKernel;
    if (message.kind === "update") this.update(message);
    else if (message.kind === "rows") this.store.answer(message);
    if (message.kind !== "update") this.commands.answered(message);
    this.schedule();
  };

  private update(update: Update): void {
    const folded = this.store.fold(update, now_s()); // stale: another view of this widget has folded it
    this.view.sample(now_s());
    this.commands.offered(update.head.can);
    if (update.pages.includes(this.page)) this.wait_s = 0;
    if (folded === "gap" && now_s() - this.askedAt_s > ANSWER_S) this.ask("resync", true);
  }

  /** Hello and Resync are both answered by a whole update; a kernel that is busy is asked less and less often. */
  private ask(kind: "hello" | "resync", anew: boolean): void {
    this.askedAt_s = now_s();
    this.wait_s = anew ? ANSWER_S : Math.min(PATIENCE_S, 2 * this.wait_s);
    this.trySend({ kind, view: this.page });
  }

  private say(text: string): void {
    this.view.say(text);
    this.schedule();
  }

  private tick(): void {
    if (this.root.isConnected) this.shownAt_s = now_s();
    this.turn();
    const state = this.store.head?.state;
    const isDue = state === "running" || state === "paused" || now_s() - this.renderedAt_s >= RARELY_S;
    if (this.visible && !document.hidden && isDue) this.schedule();
  }

  private schedule(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.renderedAt_s = now_s();
      this.view.render(this.renderedAt_s);
    });
  }

  private send(message: FromBrowser): void {
    this.model.send(message);
  }

  private trySend(message: FromBrowser): void {
    try {
      this.send(message);
    } catch {
      // The kernel is gone; the panel goes on showing what it knows.
    }
  }
}

/** A clock that never jumps: only differences are used. */
function now_s(): number {
  return performance.now() / 1000;
}

/** Of each widget on this page, by its id (every display is handed a model object of its own), what shows it, or did. */
const panels = new Map<string, Set<Panel>>();

export default {
  render({ model, el }: RenderProps<Traits>): () => void {
    const id = model.get("panel_id");
    const known = panels.get(id) ?? new Set<Panel>();
    panels.set(id, known);
    let panel = [...known].find((one) => one.isFree) ?? new Panel(model, [...known][0]);
    known.add(panel);
    panel.show(el);
    // An output that is drawn anew, as the kernel has it done at the end, takes the place of the old one a moment
    // later: it goes on with that one's tab, filter and details.
    const timer = setTimeout(() => {
      const old = [...known].find((one) => one !== panel && one.isFree);
      if (!old) return;
      panel.hide(el);
      known.delete(panel);
      panel = old;
      panel.show(el);
    }, REPLACED_MS);
    return () => {
      clearTimeout(timer);
      panel.hide(el);
    };
  },
};
