// Newtab: the form of a new batch, in the main area.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette } from "@jupyterlab/apputils";
import { Widget } from "@lumino/widgets";
import type { Root } from "../../src/wire";
import { words } from "./api";
import { CATEGORY, ID } from "./commands";
import { NewBatch } from "./newbatch";
import { sign } from "./sign";
import { sure } from "./sure";
import { IBatch } from "./token";

const TICK_MS = 1000;

export const newBatch: JupyterFrontEndPlugin<void> = {
  id: "@ipybatch/lab:new",
  description: "Submits prompts or a table, without any code.",
  autoStart: true,
  requires: [IBatch],
  optional: [ICommandPalette],
  activate: (app: JupyterFrontEnd, batch: IBatch, palette: ICommandPalette | null) => {
    let made = 0;
    const { api, feed } = batch;
    app.commands.addCommand(ID.create, {
      label: "New Batch\u2026",
      icon: sign,
      execute: ({ template }) => {
        const form = new NewBatch(api, {
          open: (id, name) => void app.commands.execute(ID.open, { id, name }),
          download: (id) => void app.commands.execute(ID.download, { id }),
          sure,
          changed: (what) => feed.renew(what),
        });
        const widget = new FormTab(form, `ipybatch-new-${(made += 1)}`);
        const ticker = setInterval(() => form.tick(), TICK_MS);
        let known = batch.sessions.templates; // the form has listed them itself: only what comes after that is news
        const stop = batch.sessions.onChange(() => {
          if (known === batch.sessions.templates) return;
          known = batch.sessions.templates;
          form.heard(known);
        });
        widget.disposed.connect(() => {
          clearInterval(ticker);
          stop();
        });
        app.shell.add(widget, "main");
        app.shell.activateById(widget.id);
        void api.get<Root>("/").then((root) => form.offer(root, typeof template === "string" ? template : ""), (error) => form.refuse(words(error)));
        return widget;
      },
    });
    palette?.addItem({ command: ID.create, category: CATEGORY });
  },
};

class FormTab extends Widget {
  constructor(private readonly form: NewBatch, id: string) {
    super();
    this.id = id;
    this.title.label = "New batch";
    this.title.icon = sign;
    this.title.closable = true;
    for (const name of ["ipybatch", "ib-in-tab"]) this.addClass(name);
    this.node.append(form.node);
    this.disposed.connect(() => form.close());
  }

  /** JupyterLab takes the tab that has the focus for the one that is in front. */
  protected override onActivateRequest(): void {
    if (!this.node.contains(document.activeElement)) this.form.focus();
  }
}
