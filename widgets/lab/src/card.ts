// Card: a session that is live, in four lines that keep their places.
import { Bar } from "../../src/bar";
import { lever, setLever } from "../../src/breaker";
import { attribute, clipped, h, hidden, text } from "../../src/dom";
import { icon, setIcon } from "../../src/icons";
import { shownState, stateWords } from "../../src/selection";
import type { SessionItem } from "../../src/wire";
import type { Hooks } from "./hooks";
import type { Entry } from "./sessions";
import { costWords, elapsedWords, failedWords, leftWords, ofAll, percent, waitingWords } from "./told";
import { Tools } from "./tools";
import { title } from "./tool";
import type { Verbs } from "./verbs";

export class Card {
  private readonly sign = icon();
  private readonly name = h("span", "subject");
  private readonly open = h("button", "open", this.sign, this.name);
  private readonly lever = lever();
  private readonly light = h("span", "light", this.lever);
  private readonly percent = h("b", "percent");
  private readonly bar = new Bar();
  private readonly done = h("span", "of");
  private readonly failed = h("span", "bad");
  private readonly left = h("span", "left");
  private readonly facts = h("span", "facts-of");
  private readonly tools: Tools;
  private readonly stuck: Stuck;
  private item: SessionItem | null = null;
  readonly node: HTMLElement;

  constructor(hooks: Hooks, private readonly verbs: Verbs) {
    this.tools = new Tools(hooks, verbs);
    this.stuck = new Stuck(hooks);
    this.open.type = "button";
    this.name.dir = "auto";
    this.open.addEventListener("click", () => this.item && hooks.open(this.item));
    this.light.setAttribute("role", "img");
    this.node = h(
      "li",
      "card",
      h("div", "line", this.open, this.light, this.percent),
      this.bar.node,
      h("div", "line", this.done, this.failed, this.left),
      h("div", "line", this.facts, this.tools.node),
      this.stuck.node,
    );
  }

  patch({ item, at_s }: Entry, now_s: number): void {
    const passed_s = Math.max(0, now_s - at_s);
    this.item = item;
    attribute(this.node, "data-is", shownState(item));
    setIcon(this.sign, shownState(item));
    text(this.name, item.name);
    attribute(this.open, "title", `${item.name}: ${stateWords(item)} ${item.where}`.trim());
    attribute(this.open, "aria-label", `${item.name}, ${stateWords(item)}, open`);
    text(this.percent, percent(item));
    this.patchLight(item);
    this.bar.patch(item.name, item.state, item.counts);
    text(this.done, ofAll(item));
    text(this.failed, failedWords(item));
    text(this.left, item.state === "running" ? leftWords(item, passed_s) : stateWords(item));
    const isStuck = this.stuck.patch(item, this.verbs);
    const said = (isStuck ? "" : this.verbs.saidOf(item.id)) || waitingWords(item, passed_s);
    clipped(this.facts, said || [elapsedWords(item, passed_s), costWords(item)].filter(Boolean).join(" \u00b7 "));
    this.tools.patch(item);
  }

  private patchLight({ breaker }: SessionItem): void {
    hidden(this.light, breaker === null);
    setLever(this.lever, breaker ?? "none");
    attribute(this.light, "data-is", breaker ?? "none");
    title(this.light, `Breaker ${(breaker ?? "none").replace("_", " ")}`);
  }
}

/** Its kernel takes no command: what can be done instead. */
class Stuck {
  private readonly words = h("span");
  private readonly interrupt = h("button", "", "Interrupt kernel");
  private readonly shutDown = h("button", "end", "Shut down kernel");
  private kernel = "";
  readonly node = h("div", "stuck", h("p", "", icon("warn"), this.words), h("div", "buttons", this.interrupt, this.shutDown));

  constructor(hooks: Hooks) {
    this.node.hidden = true;
    for (const button of [this.interrupt, this.shutDown]) button.type = "button";
    this.interrupt.addEventListener("click", () => hooks.interrupt(this.kernel));
    this.shutDown.addEventListener("click", () => hooks.shutDown(this.kernel));
  }

  /** Whether it is: what was answered to the command says no more then. */
  patch(item: SessionItem, verbs: Verbs): boolean {
    const answer = verbs.stuck(item.id);
    hidden(this.node, answer === undefined);
    if (!answer) return false;
    this.kernel = answer.kernel ?? "";
    const whose = item.notebook ? ` of ${item.notebook}` : "";
    text(this.words, `The kernel${whose} does not answer; \u201c${answer.verb.replace("_", " ")}\u201d waits for it.`);
    attribute(this.interrupt, "title", `Interrupt the kernel${whose}: what runs there stops with KeyboardInterrupt`);
    attribute(this.shutDown, "title", `Shut down the kernel${whose}: its variables are lost, what is recorded stays`);
    return true;
  }
}
