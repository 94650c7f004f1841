// Broadcast: the second way into a Python that runs in the browser itself, as JupyterLite's does, in a worker of the page.
//
// That kernel reads the next message of a notebook when the cell before it has ended, and it has no other channel. A
// cell that awaits leaves Python's loop free, and the browser brings to it what one part of a site says to the others.
// Python's half is `jupyter/broadcast.py`. Panels of other tabs have other ids: nobody acts on what is not for them.
import type { Call } from "./subshell";

export const CHANNEL = "ipybatch";

export function broadcast({ name, values }: Call): void {
  const channel = new BroadcastChannel(CHANNEL);
  channel.postMessage(JSON.stringify([name, ...values]));
  channel.close();
}
