// Leave: how the keyboard gets out of a panel. Its keys stay in it (see `dom`), so the notebook's own do nothing while
// the focus is in here, until Escape puts it on the cell; a hint says so as long as the keyboard is used.
//
// Rule: Escape closes the innermost thing first (details, an edited form, what was typed into the filter), then leaves.
import { h, hidden } from "./dom";

const CELL = ".jp-Cell";

export function leaveByEscape(node: HTMLElement): void {
  // Beside the tabs or in a line that is not unfolded, where there are such; else in the corner.
  const places = node.querySelectorAll(".ib-book, .ib-compact");
  const hints = [...(places.length ? places : [node])].map((place) => {
    const hint = h("p", "leave", h("kbd", "", "Esc"), " back to the notebook");
    place.append(hint);
    return hint;
  });
  const show = (yes: boolean): void => hints.forEach((hint) => hidden(hint, !yes));
  show(false);
  node.addEventListener("keydown", (event) => {
    const { key, target, altKey, ctrlKey, metaKey, shiftKey } = event;
    if (key !== "Escape" || event.defaultPrevented || altKey || ctrlKey || metaKey || shiftKey) return;
    if (target instanceof HTMLInputElement && target.type === "search" && target.value) return; // the browser empties it
    const cell = node.closest<HTMLElement>(CELL);
    if (!cell) return;
    event.preventDefault();
    event.stopPropagation();
    cell.focus({ preventScroll: true });
  });
  // By the pointer one is in and out without a word.
  node.addEventListener("focusin", ({ target }) => {
    show((target as Element).matches(":focus-visible") && node.closest(CELL) !== null);
  });
  node.addEventListener("focusout", ({ relatedTarget }) => {
    if (!node.contains(relatedTarget as Node | null)) show(false);
  });
}
