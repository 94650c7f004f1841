// Leave: how the keyboard gets out of a panel. Its keys stay in it (see `dom`), so the notebook's own do nothing while
// the focus is in here, until Escape puts it on the cell; a hint says so as long as the keyboard is used.
//
// Ctrl+S stays the notebook's: in a panel there is nothing to save, and the browser would save its page.
//
// Rule: Escape closes the innermost thing first (details, an edited form, what was typed into the filter), then leaves.
import { h, hidden, KEEPS_KEYS } from "./dom";

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
    addEventListener("keydown", letSave, true); // before Lumino, which listens on the document
    show((target as Element).matches(":focus-visible") && node.closest(CELL) !== null);
  });
  node.addEventListener("focusout", ({ relatedTarget }) => {
    if (node.contains(relatedTarget as Node | null)) return;
    removeEventListener("keydown", letSave, true);
    show(false);
  });
}

/** Hand one key to the notebook: for as long as it takes, nothing on its way keeps it. */
function letSave({ key, target, ctrlKey, metaKey, altKey, shiftKey }: KeyboardEvent): void {
  if (key.toLowerCase() !== "s" || !(ctrlKey || metaKey) || altKey || shiftKey || !(target instanceof Element)) return;
  const keepers: Element[] = [];
  for (let at = target.closest(`[${KEEPS_KEYS}]`); at; at = at.parentElement?.closest(`[${KEEPS_KEYS}]`) ?? null) keepers.push(at);
  for (const keeper of keepers) keeper.removeAttribute(KEEPS_KEYS);
  setTimeout(() => keepers.forEach((keeper) => keeper.setAttribute(KEEPS_KEYS, "true")));
}
