// Tools: the buttons of one session that make sense now.
import { attribute, h, hidden } from "../../src/dom";
import type { IconName } from "../../src/icons";
import { ended, tried } from "../../src/store";
import type { SessionItem, Verb } from "../../src/wire";
import type { Hooks } from "./hooks";
import { baseName } from "./told";
import { title, tool } from "./tool";
import type { Verbs } from "./verbs";

const VERBS: [Verb & IconName, string][] = [
  ["start_now", "Start now:"],
  ["pause", "Pause"],
  ["resume", "Resume"],
  ["lift", "End the cool-down of"],
  ["retry_failed", "Retry what failed of"],
  ["cancel", "Cancel"],
];

export class Tools {
  private readonly buttons = new Map<Verb, HTMLButtonElement>();
  private readonly notebook: HTMLButtonElement;
  private readonly download: HTMLButtonElement;
  private item: SessionItem | null = null;
  readonly node = h("div", "tools");

  constructor(hooks: Hooks, private readonly verbs: Verbs) {
    const act = (what: (item: SessionItem) => void) => () => this.item && what(this.item);
    this.notebook = tool("notebook", "", act(hooks.notebook));
    this.download = tool("download", "", act(hooks.download));
    for (const [verb] of VERBS) this.buttons.set(verb, tool(verb, "", act((item) => hooks.press(item, verb))));
    this.node.append(...this.buttons.values(), this.notebook, this.download);
  }

  patch(item: SessionItem): void {
    this.item = item;
    for (const [verb, words] of VERBS) {
      const button = this.buttons.get(verb)!;
      const focused = button.matches(":focus");
      hidden(button, !item.can.includes(verb));
      title(button, `${words} ${item.name}`);
      attribute(button, "aria-busy", this.verbs.isPending(item.id, verb) ? "true" : null);
      // Pause gives way to Resume under the keyboard's focus.
      if (focused && button.hidden) queueMicrotask(() => this.first()?.focus());
    }
    hidden(this.notebook, !item.notebook);
    title(this.notebook, `Open ${baseName(item.notebook ?? "")}`);
    hidden(this.download, !ended(item.state) && tried(item.counts) === 0);
    title(this.download, `Download the results of ${item.name}`);
  }

  private first(): HTMLButtonElement | undefined {
    return [...this.node.querySelectorAll("button")].find((button) => !button.hidden);
  }
}
