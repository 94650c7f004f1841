// Panel: the one entry. Messages fold into the store; the view is drawn from the store, at most once a frame.
//
//   kernel --Update--> store --frame--> view          view --press--> commands --Command--> kernel
//
// A view that is out of sight says Bye, and Hello when it is seen again: the kernel sends nothing meanwhile, see
// `presence`. A kernel that is not heard of any more is said to be gone, see `silence` and `liveness`.
import type { AnyModel, RenderProps } from "@anywidget/types";
import { Commands } from "./commands";
import { h } from "./dom";
import { Liveness } from "./liveness";
import { Presence } from "./presence";
import type { FromBrowser, FromKernel, Update, ViewName } from "./schema";
import { showSessions, type Traits } from "./sessions";
import type { Silence } from "./silence";
import { Store } from "./store";
import type { Kernel } from "./subshell";
import { View } from "./view";

const TICK_MS = 1000;
const RARELY_S = 30; // between two looks at a session that has ended: results may be about to expire
const MOMENT_S = 2.5;
const REPLACED_MS = 50;

const decoder = new TextDecoder();

class Panel {
  private readonly store: Store;
  private readonly commands: Commands;
  private readonly liveness: Liveness;
  private readonly presence: Presence;
  private readonly view: View;
  private readonly root = h("div");
  private watcher: IntersectionObserver | null = null;
  private renderedAt_s = 0;
  private ticker: ReturnType<typeof setInterval> | undefined;
  private visible = true;
  private isWhole = false;
  private frame = 0;
  private shownAt_s = -Infinity;
  private wasGone: Silence["why"] | undefined;

  constructor(private readonly model: AnyModel<Traits>, known: Panel | undefined) {
    this.store = known?.store ?? new Store();
    const kernel = (): Kernel | null => (model.widget_manager as { kernel?: Kernel | null } | undefined)?.kernel ?? null;
    const commands = (this.commands = new Commands({
      panelId: () => model.get("panel_id"),
      send: (command) => this.send(command),
      kernel,
      say: (text) => this.say(text),
    }));
    this.liveness = new Liveness(kernel, (why) => this.lost(why));
    this.presence = new Presence({
      first: (message) => this.trySend(message),
      second: (message) => void commands.tell(message),
      isBusy: () => commands.isBusy(),
    });
    this.view = new View((model.get("view") || "panel") as ViewName, {
      store: this.store,
      press: (name, ...values) => {
        if (!this.gone()) commands.press(name, ...values);
      },
      isPending: (name) => commands.isPending(name),
      say: (words) => this.say(words),
      redraw: () => this.schedule(),
      unfolded: () => this.unfolded(),
      gone: () => this.gone(),
      unix_s: () => this.gone()?.heard ?? Date.now() / 1000,
    }, { compact: model.get("compact") === true });
    this.root.className = "ipybatch";
    this.root.append(this.view.node);
    const initial = model.get("initial");
    if (initial && !known) this.begin(JSON.parse(initial) as Update);
  }

  /** Show what the widget holds: of a notebook that was saved it is as old as that. */
  private begin(update: Update): void {
    this.store.fold(update, now_s(), update.head.at_s);
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
    this.model.on("comm_live_update", this.schedule);
    document.addEventListener("visibilitychange", this.turn);
    addEventListener("pagehide", this.leave);
    this.watcher = new IntersectionObserver(([entry]) => (this.visible = entry?.isIntersecting ?? true));
    this.watcher.observe(this.root);
    this.ticker = setInterval(() => this.tick(), TICK_MS);
    this.render();
    this.presence.turn(!document.hidden, now_s());
    this.schedule(); // once it is in the page, where the front end marks what has no kernel
  }

  /** Leave `el`, unless it has moved elsewhere by now. */
  hide(el: HTMLElement): void {
    if (this.root.parentElement !== el) return;
    this.model.off("msg:custom", this.receive);
    this.model.off("comm_live_update", this.schedule);
    document.removeEventListener("visibilitychange", this.turn);
    removeEventListener("pagehide", this.leave);
    this.watcher?.disconnect();
    this.watcher = null;
    clearInterval(this.ticker);
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.commands.close();
    this.liveness.close();
    this.root.remove();
    this.leave();
  }

  private readonly turn = (): void => this.presence.turn(!document.hidden && this.root.isConnected, now_s());

  private readonly leave = (): void => this.presence.turn(false, now_s());

  private readonly receive = (_: unknown, buffers: DataView[]): void => {
    const message = JSON.parse(decoder.decode(buffers[0])) as FromKernel;
    this.store.heard(now_s());
    if (message.kind === "update") this.update(message);
    else if (message.kind === "beat") this.presence.answered(message);
    else if (message.kind === "rows") this.store.answer(message);
    else if (message.kind === "errors") this.store.tell(message);
    if (message.kind === "rows" || message.kind === "errors" || message.kind === "ack") this.commands.answered(message);
    this.schedule();
  };

  private update(update: Update): void {
    const folded = this.store.fold(update, now_s()); // stale: another view of this widget has folded it
    this.commands.offered(update.head.can);
    this.presence.answered(update);
    if (folded === "gap") this.presence.missed(now_s());
  }

  private gone(): Silence | null {
    return this.store.silence(now_s());
  }

  private lost(why: Silence["why"]): void {
    this.store.lost(why);
    this.commands.giveUp();
    this.schedule();
  }

  /** One of several sessions tells no more than its line until it is opened. */
  private unfolded(): boolean {
    const isToCome = this.model.get("is_part") === true && !this.isWhole && !this.gone();
    this.isWhole ||= isToCome;
    if (isToCome) this.commands.press("open");
    return isToCome;
  }

  private say(text: string): void {
    this.view.say(text);
    this.schedule();
  }

  private tick(): void {
    if (this.root.isConnected) this.shownAt_s = now_s();
    this.turn();
    if (this.presence.seen) this.store.listen(now_s());
    // A kernel that took the place of this panel's does not know it: it would log each question as a fault.
    if (this.gone()?.why !== "restarted") this.presence.tick(now_s(), this.store.quiet_s(now_s()));
    this.liveness.look(this.root);
    const state = this.store.head?.state;
    const isLive = (state === "running" || state === "paused") && !(this.wasGone && this.gone());
    const isDue = isLive || now_s() - this.renderedAt_s >= RARELY_S;
    if (this.visible && !document.hidden && isDue) this.schedule();
  }

  private readonly schedule = (): void => {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.liveness.look(this.root);
      this.render();
    });
  };

  private render(): void {
    this.renderedAt_s = now_s();
    this.wasGone = this.gone()?.why;
    this.view.render(this.renderedAt_s);
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

function mount(model: AnyModel<Traits>, el: HTMLElement): () => void {
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
}

export default {
  render({ model, el, signal }: RenderProps<Traits>): () => void {
    const close = model.get("view") === "sessions" ? showSessions(model, el, mount) : mount(model, el);
    // Hosts end a view by what is returned, by the signal, or by both.
    (signal as AbortSignal | undefined)?.addEventListener("abort", close, { once: true });
    return close;
  },
};
