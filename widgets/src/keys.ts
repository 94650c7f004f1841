// Keys: what the shapes of the timeline mean, in words beside the shapes.
import { attribute, h, hidden, prefixed, svg, text } from "./dom";
import { count } from "./format";
import { icon } from "./icons";
import type { Rates } from "./chart";
import { STACK } from "./lanes";
import { shownStatus, statusWord, type ShownStatus } from "./selection";
import type { Store } from "./store";

const SECOND_WORDS: Record<string, string> = { "/s": "second", "/min": "minute", "/h": "hour" };

/** Above the chart: its name, and what is beneath and behind the line. */
export class RateKeys {
  private readonly title = h("b");
  private readonly failed = key("failed");
  private readonly open = key("open", "breaker open");
  readonly node = h("span", "key-row", this.title, key("started"), this.failed, this.open);

  patch({ bins, unit }: Rates, opened: boolean): void {
    text(this.title, `Attempts per ${SECOND_WORDS[unit.word]}`);
    hidden(this.failed, !bins.some((bin) => bin.failed_per_s > 0));
    hidden(this.open, !opened);
  }
}

/** Under the bars: how many groups stand where. */
export class GroupKeys {
  private readonly title = h("b");
  private readonly counts = new Map(STACK.map((status) => [status, statusKey(status)]));
  readonly node = h("div", "keys", h("span", "key-row", this.title, ...[...this.counts.values()].reverse()));

  patch({ groups, groupWord }: Store): void {
    const counts = new Map<ShownStatus, number>();
    for (const group of groups.values()) {
      const status = shownStatus(group);
      counts.set(status, (counts.get(status) ?? 0) + 1);
    }
    text(this.title, groups.size ? `By ${(groupWord || "group").toLowerCase()}` : "");
    for (const [status, node] of this.counts) {
      hidden(node, !counts.get(status));
      text(node.lastElementChild!, `${count(counts.get(status) ?? 0)} ${statusWord(status)}`);
    }
  }
}

function key(name: string, words = name): HTMLElement {
  const sample = svg("svg", { viewBox: "0 0 12 12", class: prefixed(`sample of-${name}`), "aria-hidden": "true" });
  sample.append(svg("path", { d: name === "started" ? "M0 8H5V4H12" : "M-1 3L3 -1M-1 9L9 -1M2 13L13 2M8 13L13 8" }));
  return h("span", "key", sample, h("span", "", words));
}

function statusKey(status: ShownStatus): HTMLElement {
  const node = h("span", "key tally", icon(status), h("span"));
  attribute(node, "data-is", status);
  return node;
}
