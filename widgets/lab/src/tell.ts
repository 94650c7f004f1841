// Tell: who is told how it ends: any of the channels that there are.
import { h, hidden, ownId, text } from "../../src/dom";
import type { ChannelItem, ChannelList, SubmissionRequest } from "../../src/wire";
import { words, type Api } from "./api";

const NONE = "For a message at the end, add a channel in a terminal: python -m ipybatch notify add NAME";

export class Tell {
  private readonly boxes = h("div", "choices");
  private readonly hint = h("small", "hint");
  private readonly again = h("button", "", "Try again");
  private channels: ChannelItem[] | null = null;
  private chosen: string[] = [];
  /** What a template says beside the names: of what, and when. */
  private more: object | null = null;
  private isList = false;
  readonly node = h("fieldset", "ask", h("legend", "", "Tell"), this.boxes, h("div", "beside", this.hint, this.again));

  constructor() {
    this.hint.id = ownId("hint");
    this.node.setAttribute("aria-describedby", this.hint.id);
    this.hint.setAttribute("role", "status");
    this.again.type = "button";
    this.again.hidden = true;
    this.patch();
  }

  /** Offer the channels that there are, by name. */
  async offer(api: Api): Promise<void> {
    this.again.onclick = () => void this.offer(api);
    try {
      this.channels = (await api.get<ChannelList>("/channels")).items;
      text(this.hint, this.channels.length ? "" : NONE);
      // One that is added now is offered without losing what stands in the form.
      hidden(this.again, this.channels.length > 0);
    } catch (error) {
      text(this.hint, `The channels cannot be listed: ${words(error)}`);
      hidden(this.again, false);
    }
    this.patch();
  }

  /** What a request says of it; null for nobody. */
  get said(): NonNullable<SubmissionRequest["notify"]> | null {
    const [only] = this.chosen;
    if (only === undefined) return null;
    const channels = this.chosen.length === 1 && !this.isList ? only : this.chosen;
    return this.more ? { ...this.more, channels } : channels;
  }

  /** Show what a template says of it. */
  fill(notify: unknown): void {
    const { channels, ...more } = isNamed(notify) ? notify : { channels: notify };
    this.more = isNamed(notify) ? more : null;
    this.isList = Array.isArray(channels);
    this.chosen = [channels ?? []].flat().map(String);
    this.patch();
  }

  private patch(): void {
    const known = this.channels ?? [];
    const others = this.chosen.filter((name) => !known.some((one) => one.name === name));
    const lost = this.channels ? "not there any more" : "";
    this.boxes.replaceChildren(
      ...known.map(({ name, kind, usable }) => this.box(name, usable ? kind : `${kind}, cannot be used here`, usable)),
      ...others.map((name) => this.box(name, lost, false)),
    );
    hidden(this.boxes, !this.boxes.hasChildNodes());
  }

  private box(name: string, about: string, usable: boolean): HTMLElement {
    const input = Object.assign(h("input"), { type: "checkbox", checked: this.chosen.includes(name) });
    input.disabled = !usable && !input.checked;
    input.addEventListener("change", () => {
      const others = this.chosen.filter((one) => one !== name);
      this.chosen = input.checked ? [...others, name] : others;
      // The form looks at everything anew.
      this.node.dispatchEvent(new Event("input", { bubbles: true }));
    });
    const label = h("label", "choice", input, h("span", "", name), h("small", "", about));
    label.toggleAttribute("data-off", input.disabled);
    return label;
  }
}

function isNamed(notify: unknown): notify is { channels: unknown } {
  return typeof notify === "object" && notify !== null && "channels" in notify;
}
