// Commands: what can be asked of a session by its id, in the palette of the session whose tab is in front.
import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, showErrorMessage, WidgetTracker } from "@jupyterlab/apputils";
import { URLExt } from "@jupyterlab/coreutils";
import { KernelAPI } from "@jupyterlab/services";
import type { Verb } from "../../src/wire";
import { BASE } from "./shared";
import { sure } from "./sure";
import { SessionTab } from "./tab";
import { IBatch } from "./token";

export const ID = {
  open: "ipybatch:open",
  notebook: "ipybatch:open-notebook",
  download: "ipybatch:download",
  interrupt: "ipybatch:interrupt-kernel",
  shutDown: "ipybatch:shut-down-kernel",
  refresh: "ipybatch:refresh",
  show: "ipybatch:show",
  create: "ipybatch:new",
  press: "ipybatch:press",
} as const;

export const CATEGORY = "Batch";
const VERBS: [Verb, string][] = [
  ["pause", "Pause Batch Session"],
  ["resume", "Resume Batch Session"],
  ["start_now", "Start the Batch Session Now"],
  ["cancel", "Cancel Batch Session"],
  ["retry_failed", "Retry What Failed of the Batch Session"],
];

export const commands: JupyterFrontEndPlugin<void> = {
  id: "@ipybatch/lab:commands",
  description: "Commands for batch sessions, and their tabs in the main area.",
  autoStart: true,
  requires: [IBatch],
  optional: [ICommandPalette, ILayoutRestorer],
  activate: (app: JupyterFrontEnd, batch: IBatch, palette: ICommandPalette | null, restorer: ILayoutRestorer | null) => {
    const tracker = new WidgetTracker<SessionTab>({ namespace: "ipybatch" });
    const front = (): string => (app.shell.currentWidget instanceof SessionTab ? app.shell.currentWidget.session : "");
    const idOf = (args: { readonly [name: string]: unknown }): string => (typeof args["id"] === "string" ? args["id"] : front());
    const itemOf = (args: { readonly [name: string]: unknown }) => batch.sessions.get(idOf(args));

    app.commands.addCommand(ID.open, {
      label: "Open Batch Session",
      execute: (args) => {
        const { id, name } = args as { id: string; name?: string };
        let tab = tracker.find((one) => one.session === id);
        if (!tab) {
          tab = new SessionTab(batch, id, name ?? batch.sessions.get(id)?.name ?? "session");
          void tracker.add(tab);
          app.shell.add(tab, "main");
        }
        app.shell.activateById(tab.id);
        return tab;
      },
    });
    for (const [verb, label] of VERBS) {
      app.commands.addCommand(`ipybatch:${verb.replace("_", "-")}`, {
        label,
        isEnabled: (args) => itemOf(args)?.can.includes(verb) ?? false,
        execute: (args) => batch.verbs.press(idOf(args), verb),
      });
      palette?.addItem({ command: `ipybatch:${verb.replace("_", "-")}`, category: CATEGORY });
    }
    app.commands.addCommand(ID.notebook, {
      label: "Open the Notebook of the Batch Session",
      isEnabled: (args) => Boolean(itemOf(args)?.notebook),
      execute: (args) => app.commands.execute("docmanager:open", { path: itemOf(args)!.notebook! }),
    });
    app.commands.addCommand(ID.download, {
      label: "Download the Results of the Batch Session",
      isEnabled: (args) => idOf(args) !== "",
      execute: (args) => {
        const { baseUrl } = app.serviceManager.serverSettings;
        const link = document.createElement("a");
        link.href = URLExt.join(baseUrl, BASE, `sessions/${idOf(args)}/results.csv`);
        link.download = `${(itemOf(args)?.name ?? "results").replace(/[^\w.-]+/g, "-")}.csv`;
        link.click();
      },
    });
    app.commands.addCommand(ID.interrupt, {
      label: "Interrupt Kernel",
      execute: async ({ kernel }) => {
        const asked = KernelAPI.interruptKernel(String(kernel), app.serviceManager.serverSettings);
        await asked.catch((error: Error) => showErrorMessage("The kernel was not interrupted", error));
      },
    });
    app.commands.addCommand(ID.shutDown, {
      label: "Shut Down Kernel",
      execute: async ({ kernel }) => {
        const body = "Its variables are lost. What the session has recorded stays, and the same name continues it.";
        if (!(await sure("Shut down the kernel?", body, "Shut Down"))) return;
        const asked = app.serviceManager.kernels.shutdown(String(kernel));
        await asked.catch((error: Error) => showErrorMessage("The kernel was not shut down", error));
      },
    });
    app.commands.addCommand(ID.refresh, { label: "Refresh Batch Sessions", execute: () => batch.feed.refresh() });
    for (const command of [ID.notebook, ID.download, ID.refresh]) palette?.addItem({ command, category: CATEGORY });
    batch.sessions.onChange(() => app.commands.notifyCommandChanged());
    void restorer?.restore(tracker, {
      command: ID.open,
      args: (tab: SessionTab) => ({ id: tab.session, name: tab.title.label }),
      name: (tab: SessionTab) => tab.session,
    });
  },
};


