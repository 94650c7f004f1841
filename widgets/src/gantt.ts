// Gantt: the groups as bars on the time axis, or, when there are too many, how many of each status were at work.
import { path } from "./chart";
import { attribute, prefixed, svg } from "./dom";
import { icon, setIcon } from "./icons";
import { columns, lanes, STACK, type Bar } from "./lanes";
import type { Group } from "./schema";
import { shownStatus, type ShownStatus } from "./selection";
import type { Timescale } from "./timescale";
import { fitted, Words } from "./words";

const COLUMN_PX = 3;
const COLUMNS_HIGH = 44;
const MOST_HIGH = 76;
/** Lower bars have no room for a name. */
const NAMED_PX = 13;

interface Drawn extends Bar {
  x: number;
  width: number;
}

export class Gantt {
  private readonly bars = new Map(STACK.map((status) => [status, path("bar-of")]));
  private readonly signs = svg("g", { class: prefixed("signs") });
  private readonly names = new Words("names");
  private laid: Bar[] | null = [];
  private drawn: Drawn[] = [];
  private top = 0;
  private pitch = 0;
  /** How high it will be. */
  height = 0;
  readonly node: SVGGElement;

  constructor() {
    for (const [status, node] of this.bars) node.setAttribute("data-is", status);
    this.node = svg("g", {}, ...this.bars.values(), this.signs, this.names.node);
  }

  /** Find a place for every group. */
  layout(groups: ReadonlyMap<number, Group>, to_s: number): void {
    this.laid = lanes(groups, to_s);
    const count = Math.max(0, ...(this.laid ?? []).map((bar) => bar.lane + 1));
    this.pitch = Math.min(20, MOST_HIGH / count);
    this.height = this.laid ? count && count * this.pitch : COLUMNS_HIGH;
  }

  draw(groups: ReadonlyMap<number, Group>, to_s: number, scale: Timescale, top: number): void {
    this.top = top;
    this.drawn = (this.laid ?? []).map((bar) => placed(bar, scale));
    const paths = this.laid ? this.barPaths() : columnPaths(groups, to_s, scale, top);
    for (const [status, node] of this.bars) attribute(node, "d", paths.get(status) ?? "");
    attribute(this.node, "class", prefixed(this.laid ? "bars" : "columns"));
    this.drawSigns();
    this.drawNames();
  }

  /** The group whose bar lies there. */
  at(x: number, y: number): Group | null {
    const lane = Math.floor((y - this.top) / this.pitch);
    const near = this.drawn.filter((bar) => bar.lane === lane && bar.x - 2 <= x && x <= bar.x + bar.width + 2);
    return near.sort((a, b) => away(a, x) - away(b, x))[0]?.group ?? null;
  }

  private get thick(): number {
    return this.pitch - (this.pitch > 9 ? 4 : 1.5);
  }

  private barPaths(): Map<ShownStatus, string> {
    const paths = new Map<ShownStatus, string>();
    for (const { group, lane, x, width } of this.drawn) {
      const bar = box(x, this.top + lane * this.pitch, width, this.thick, Math.min(3, this.thick / 3, width / 2));
      paths.set(shownStatus(group), (paths.get(shownStatus(group)) ?? "") + bar);
    }
    return paths;
  }

  /** The end of a bar tells its state by shape; one that completed needs no more than its bar. */
  private drawSigns(): void {
    const told = this.drawn.filter((bar) => shownStatus(bar.group) !== "completed");
    while (this.signs.childElementCount < told.length) this.signs.append(svg("g", {}, sign()));
    while (this.signs.childElementCount > told.length) this.signs.lastElementChild!.remove();
    const size = Math.min(this.thick - 2, 9);
    told.forEach(({ group, lane, x, width }, index) => {
      const node = this.signs.children[index]!;
      const left = Math.max(x + width / 2 - size / 2, x + width - size - 3);
      const down = this.top + lane * this.pitch + (this.thick - size) / 2;
      setIcon(node.firstElementChild as SVGSVGElement, shownStatus(group));
      attribute(node, "transform", `translate(${left.toFixed(1)} ${down.toFixed(1)}) scale(${(size / 12).toFixed(3)})`);
    });
  }

  private drawNames(): void {
    if (this.thick >= NAMED_PX) {
      for (const { group, lane, x, width } of this.drawn) {
        const words = fitted(group.name, width - (shownStatus(group) === "completed" ? 8 : 20));
        if (words) this.names.put(x + 5, this.top + lane * this.pitch + this.thick / 2 + 3.5, words);
      }
    }
    this.names.done();
  }
}

function sign(): SVGSVGElement {
  const node = icon();
  node.setAttribute("width", "12");
  node.setAttribute("height", "12");
  return node;
}

function placed(bar: Bar, scale: Timescale): Drawn {
  const [from, to] = [scale.x(bar.from_s), scale.x(bar.to_s)];
  // A pixel less, so that two in one lane do not run into each other; and never less than can be seen.
  const width = Math.max(2, to - from - 1);
  return { ...bar, x: Math.min(from, scale.right - width), width };
}

function columnPaths(groups: ReadonlyMap<number, Group>, to_s: number, scale: Timescale, top: number): Map<ShownStatus, string> {
  const count = Math.floor((scale.right - scale.left) / COLUMN_PX);
  const stacked = columns(groups, to_s, count, (at_s) => (scale.x(at_s) - scale.left) / COLUMN_PX);
  const sums = Array.from({ length: count }, (_, column) => STACK.reduce((sum, status) => sum + stacked.get(status)![column]!, 0));
  const px = COLUMNS_HIGH / Math.max(1, ...sums);
  const bottom = new Array<number>(count).fill(top + COLUMNS_HIGH);
  return new Map(STACK.map((status) => [status, stacked.get(status)!.map((number, column) => {
    if (!number) return "";
    const high = number * px;
    bottom[column]! -= high;
    return `M${scale.left + column * COLUMN_PX} ${bottom[column]!.toFixed(1)}h${COLUMN_PX}v${high.toFixed(1)}h-${COLUMN_PX}z`;
  }).join("")]));
}

/** A rectangle with round corners, as a path. */
function box(x: number, y: number, width: number, height: number, radius: number): string {
  const [r, w, v] = [radius, width - 2 * radius, height - 2 * radius].map((length) => length.toFixed(1));
  const right = `M${(x + radius).toFixed(1)} ${y.toFixed(1)}h${w}q${r} 0 ${r} ${r}v${v}`;
  return `${right}q0 ${r} -${r} ${r}h-${w}q-${r} 0 -${r} -${r}v-${v}q0 -${r} ${r} -${r}z`;
}

function away(bar: Drawn, x: number): number {
  return Math.max(bar.x - x, x - bar.x - bar.width, 0);
}
