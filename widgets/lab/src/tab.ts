// Tab: the whole panel of a session in the main area, of the panel's own views.
import { Widget } from "@lumino/widgets";
import { h } from "../../src/dom";
import type { IBatch } from "./token";
import { now_s } from "./token";
import { Remote } from "./remote";
import { sign } from "./sign";

/** JupyterLab's status bar shows a tab's whole title, and moves its own signs out of sight for a long one. */
const TITLE = 48;

export class SessionTab extends Widget {
  private readonly remote: Remote;

  constructor(batch: IBatch, readonly session: string, name: string) {
    super();
    this.id = `ipybatch-${session}`;
    this.rename(name);
    this.title.icon = sign;
    this.title.closable = true;
    this.addClass("ipybatch");
    this.addClass("ib-in-tab");
    this.remote = new Remote(batch, session, { isSeen: () => this.isVisible && !document.hidden, now_s, renamed: (name) => this.rename(name) });
    this.node.append(h("div", "page", this.remote.node));
    this.remote.start();
  }

  override dispose(): void {
    if (!this.isDisposed) this.remote.stop();
    super.dispose();
  }

  protected override onAfterShow(): void {
    this.remote.look();
  }

  protected override onActivateRequest(): void {
    this.node.tabIndex = -1;
    this.node.focus({ preventScroll: true });
  }

  private rename(name: string): void {
    const letters = [...name];
    this.title.label = letters.length > TITLE ? `${letters.slice(0, TITLE).join("")}\u2026` : name;
    this.title.caption = `Batch session ${name}`;
  }
}
