// Notifications: a session that took its time has ended, unless its user has just cancelled it here.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { Notification } from "@jupyterlab/apputils";
import { ID } from "./commands";
import { endWords, hasFailures, isTold } from "./told";
import { IBatch } from "./token";

const SHOWN_MS = 8000;

export const notifications: JupyterFrontEndPlugin<void> = {
  id: "@ipybatch/lab:notifications",
  description: "Tells when a session has ended.",
  autoStart: true,
  requires: [IBatch],
  activate: (app: JupyterFrontEnd, { sessions, verbs, settings }: IBatch) => {
    sessions.onEnd((item) => {
      if (!isTold(item, settings, verbs.wasCancelledHere(item.id))) return;
      const run = (command: string) => () => void app.commands.execute(command, { id: item.id, name: item.name });
      const isWell = item.state === "completed" && !hasFailures(item);
      Notification.emit(endWords(item), isWell ? "success" : item.state === "completed" ? "warning" : "error", {
        autoClose: isWell ? SHOWN_MS : false,
        actions: [
          { label: "Open", displayType: "accent", callback: run(ID.open) },
          { label: "Download", callback: run(ID.download) },
        ],
      });
    });
  },
};
