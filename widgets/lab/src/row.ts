// Row: a session that has ended, in two lines.
import { attribute, clipped, h, text } from "../../src/dom";
import { icon, setIcon } from "../../src/icons";
import { shownState, stateWords } from "../../src/selection";
import type { SessionItem } from "../../src/wire";
import type { Hooks } from "./hooks";
import type { Entry } from "./sessions";
import { costWords, elapsedWords, failedWords, ofAll, whenWords, wholeTime } from "./told";
import { Tools } from "./tools";
import type { Verbs } from "./verbs";

export class Row {
  private readonly sign = icon();
  private readonly name = h("span", "subject");
  private readonly open = h("button", "open", this.sign, this.name);
  private readonly when = h("time", "when");
  private readonly done = h("span", "of");
  private readonly failed = h("span", "bad");
  private readonly cost = h("span", "cost");
  private readonly took = h("span", "took");
  private readonly tools: Tools;
  private item: SessionItem | null = null;
  readonly node: HTMLElement;

  constructor(hooks: Hooks, private readonly verbs: Verbs) {
    this.tools = new Tools(hooks, verbs);
    this.open.type = "button";
    this.name.dir = "auto";
    this.open.addEventListener("click", () => this.item && hooks.open(this.item));
    this.node = h(
      "li",
      "past",
      h("div", "line", this.open, this.when),
      h("div", "line", this.done, this.failed, h("span", "ends", this.cost, this.took)),
      this.tools.node,
    );
  }

  patch({ item }: Entry): void {
    this.item = item;
    attribute(this.node, "data-is", shownState(item));
    setIcon(this.sign, shownState(item));
    text(this.name, item.name);
    attribute(this.open, "title", [`${item.name}: ${stateWords(item)}`, item.reason].filter(Boolean).join("\n"));
    attribute(this.open, "aria-label", `${item.name}, ${stateWords(item)}, open`);
    text(this.when, whenWords(item.started));
    attribute(this.when, "title", `Started ${wholeTime(item.started)}`);
    attribute(this.when, "datetime", item.started);
    const said = this.verbs.saidOf(item.id);
    clipped(this.done, said || (item.state === "completed" ? ofAll(item) : `${stateWords(item)}, ${ofAll(item)}`));
    text(this.failed, said ? "" : failedWords(item));
    text(this.cost, said ? "" : costWords(item));
    text(this.took, said ? "" : elapsedWords(item, 0));
    this.tools.patch(item);
  }
}
