// Icons: one stroked path of 12 by 12 for every state, so a state is told by shape as well as by colour and word.
import { attribute, prefixed, svg } from "./dom";
import type { CommandName, State } from "./schema";
import type { ShownStatus } from "./selection";

type Sign = "note" | "warn" | "ascending" | "descending" | "copy" | "download" | "close" | "plus" | "notebook" | "reload" | "power";
export type IconName = State | ShownStatus | CommandName | Sign;

const CIRCLE = "M10.7 6A4.7 4.7 0 1 1 1.3 6A4.7 4.7 0 1 1 10.7 6Z";
const CHECK = "M2 6.4L4.8 9.2L10 3.2";
const CROSS = "M2.8 2.8L9.2 9.2M9.2 2.8L2.8 9.2";
const BARS = "M4 2.5V9.5M8 2.5V9.5";
const BACK = "M4.4 2L2 4.4L4.4 6.8M2.2 4.4H7A2.9 2.9 0 0 1 7 10.2H4.4";
const TURN = "M10.2 6A4.2 4.2 0 1 1 8.8 2.9M8.9 .9V3.1H6.7";

const PATHS: Record<IconName, string> = {
  planned: CIRCLE,
  pending: "M2 6H2.01M6 6H6.01M10 6H10.01",
  running: "M9.2 6A3.2 3.2 0 1 1 2.8 6A3.2 3.2 0 1 1 9.2 6Z",
  paused: BARS,
  completed: CHECK,
  partly: "M1 6.2L3.2 8.4L7 3.4M7.6 6.6L11 10M11 6.6L7.6 10",
  failed: CROSS,
  timeout: `${CIRCLE}M6 3.4V6.2L7.8 7.4`,
  cancelled: `${CIRCLE}M2.8 9.2L9.2 2.8`,
  skipped: "M2 2.8L5.2 6L2 9.2M6.8 2.8L10 6L6.8 9.2",
  rolled_back: BACK,
  interrupted: "M1.5 6H4.4M7.6 6H10.5M6.9 2.4L5.1 9.6",
  pause: BARS,
  resume: "M3.6 2.2L9.6 6L3.6 9.8Z",
  cancel: CROSS,
  lift: "M6 9.8V2.4M2.8 5.4L6 2.2L9.2 5.4",
  // On with it, over the bar that held it.
  start_now: "M2 2.2V9.8M4.6 2.2L10.6 6L4.6 9.8Z",
  // What failed, and on with it: a circling arrow reads as "reload the page".
  retry_failed: "M1.2 4L4.2 8M4.2 4L1.2 8M6.6 2.6L11 6L6.6 9.4Z",
  adjust: "M1.5 3.5H5M8.6 3.5H10.5M5 3.5A1.8 1.8 0 1 1 8.6 3.5A1.8 1.8 0 1 1 5 3.5M1.5 8.7H2.4M6 8.7H10.5M2.4 8.7A1.8 1.8 0 1 1 6 8.7A1.8 1.8 0 1 1 2.4 8.7",
  items: "M4.2 2.2L8 6L4.2 9.8",
  open: "M4.2 2.2L8 6L4.2 9.8",
  errors: CROSS,
  warn: "M6 1.8L11 10.4H1ZM6 5V7.4M6 8.8V8.81",
  ascending: "M3 7.5L6 4.5L9 7.5",
  descending: "M3 4.5L6 7.5L9 4.5",
  copy: "M4.2 4.2H10.4V10.4H4.2ZM1.6 7.4V1.6H7.4",
  download: "M6 1.4V7.6M3.2 5L6 7.8L8.8 5M1.6 10.4H10.4",
  close: CROSS,
  plus: "M6 2V10M2 6H10",
  notebook: "M3.2 1.4H9.6V10.6H3.2ZM1.6 3.4H3.2M1.6 6H3.2M1.6 8.6H3.2M5.4 4H7.6",
  reload: TURN,
  power: "M6 1.4V5.6M3.4 3A4.2 4.2 0 1 0 8.6 3",
  note: `${CIRCLE}M6 5.6V8.6M6 3.4V3.41`,
};

export function icon(name: IconName = "planned"): SVGSVGElement {
  const node = svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("path", {}));
  node.classList.add(prefixed("icon"));
  setIcon(node, name);
  return node;
}

export function setIcon(node: SVGSVGElement, name: IconName): void {
  attribute(node, "data-is", name);
  attribute(node.firstElementChild as SVGPathElement, "d", PATHS[name]);
}
