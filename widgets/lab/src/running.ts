// Running: live sessions among "Running Terminals and Kernels".
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { IRunningSessionManagers } from "@jupyterlab/running";
import { Signal } from "@lumino/signaling";
import { stateWords } from "../../src/selection";
import { ID } from "./commands";
import { sign } from "./sign";
import { ofAll, percent } from "./told";
import { IBatch } from "./token";

export const running: JupyterFrontEndPlugin<void> = {
  id: "@ipybatch/lab:running",
  description: "Live sessions among the running terminals and kernels.",
  autoStart: true,
  requires: [IBatch],
  optional: [IRunningSessionManagers],
  activate: (app: JupyterFrontEnd, { sessions, verbs, feed }: IBatch, managers: IRunningSessionManagers | null) => {
    if (!managers) return;
    const changed = new Signal<object, void>(sessions);
    let shown = "";
    sessions.onChange(() => {
      const now = sessions.live.map(({ item }) => `${item.id} ${item.state} ${percent(item)}`).join();
      if (now !== shown) changed.emit();
      shown = now;
    });
    managers.add({
      name: "Batch Sessions",
      running: () =>
        sessions.live.map(({ item }) => ({
          open: () => void app.commands.execute(ID.open, { id: item.id, name: item.name }),
          shutdown: () => void verbs.press(item.id, "cancel"),
          icon: () => sign,
          label: () => item.name,
          labelTitle: () => `${item.name}: ${stateWords(item)}, ${ofAll(item)}`,
          detail: () => percent(item) || ofAll(item),
        })),
      shutdownAll: () => {
        for (const { item } of sessions.live) void verbs.press(item.id, "cancel");
      },
      refreshRunning: () => void feed.refresh(),
      runningChanged: changed,
      shutdownLabel: "Cancel",
      shutdownAllLabel: "Cancel All",
      shutdownAllConfirmationText: "Cancel all live sessions? What is recorded stays, and the same names continue.",
    });
  },
};
