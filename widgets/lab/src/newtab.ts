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
        const widget = new Widget();
        widget.id = `ipybatch-new-${(made += 1)}`;
        widget.title.label = "New batch";
        widget.title.icon = sign;
        widget.title.closable = true;
        for (const name of ["ipybatch", "ib-in-tab"]) widget.addClass(name);
        widget.node.append(form.node);
        widget.disposed.connect(() => form.close());
        app.shell.add(widget, "main");
        app.shell.activateById(widget.id);
        void api.get<Root>("/").then((root) => form.offer(root, typeof template === "string" ? template : ""), (error) => form.refuse(words(error)));
        return widget;
      },
    });
    palette?.addItem({ command: ID.create, category: CATEGORY });
  },
};
