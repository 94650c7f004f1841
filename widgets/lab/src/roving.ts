// Roving: of all the buttons of a list Tab reaches one; the arrows walk among the rows, and along a row.
const STOPS = "button:not([hidden], :disabled)";

/** Let the arrows walk through `list`, whose rows match `rows`. Returns what to call after rows came or went. */
export function rove(list: HTMLElement, rows: string): () => void {
  let current: HTMLElement | null = null;
  const settle = (): void => {
    const stops = [...list.querySelectorAll<HTMLElement>(`${rows} ${STOPS}`)];
    if (!current || !stops.includes(current)) current = stops[0] ?? null;
    for (const stop of stops) if (stop.tabIndex !== (stop === current ? 0 : -1)) stop.tabIndex = stop === current ? 0 : -1;
  };
  list.addEventListener("focusin", ({ target }) => {
    if (target instanceof HTMLElement && target.matches(`${rows} ${STOPS}`)) current = target;
    settle();
  });
  list.addEventListener("keydown", (event) => {
    const next = step(event, list, rows);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  return settle;
}

function step(event: KeyboardEvent, list: HTMLElement, rows: string): HTMLElement | undefined {
  if (event.altKey || event.ctrlKey || event.metaKey) return undefined;
  const row = (event.target as Element).closest(rows);
  if (!row) return undefined;
  const along = [...row.querySelectorAll<HTMLElement>(STOPS)];
  const at = along.indexOf(event.target as HTMLElement);
  if (event.key === "ArrowRight") return along[at + 1];
  if (event.key === "ArrowLeft") return along[at - 1];
  const all = [...list.querySelectorAll(rows)];
  const index = all.indexOf(row);
  const wanted = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: all.length - 1 }[event.key];
  return wanted === undefined ? undefined : (all[wanted]?.querySelector<HTMLElement>(STOPS) ?? undefined);
}
