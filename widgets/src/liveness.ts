// Liveness: what the front end knows of a panel's kernel: that it was restarted, has died, or has lost the panel.
//
// JupyterLab tells it of the kernel's connection. Jupyter's widgets mark what has lost its kernel by a class, in
// every front end that has them, also in a saved notebook that no kernel has run yet.
import type { Kernel } from "./subshell";
import type { Why } from "./silence";

const RESTARTS = ["restarting", "autorestarting"];
const DISCONNECTED = ".jupyter-widgets-disconnected";

export class Liveness {
  private known: Kernel | null = null;
  private wasMarked = false;

  constructor(private readonly kernel: () => Kernel | null, private readonly lost: (why: Why) => void) {}

  /** Look at the connection, and at the mark on what `node` stands in. */
  look(node: Element): void {
    const kernel = this.kernel();
    if (kernel !== this.known) {
      // A kernel that took another's place does not know this panel.
      if (this.known && kernel) this.lost("dead");
      this.close();
      this.known = kernel;
      kernel?.statusChanged?.connect(this.slot);
    }
    const isMarked = node.closest(DISCONNECTED) !== null;
    if (isMarked && !this.wasMarked) this.lost("dead");
    this.wasMarked = isMarked;
  }

  close(): void {
    this.known?.statusChanged?.disconnect(this.slot);
    this.known = null;
  }

  private readonly slot = (_: unknown, status: string): void => {
    if (RESTARTS.includes(status)) this.lost("restarted");
    else if (status === "dead") this.lost("dead");
  };
}
