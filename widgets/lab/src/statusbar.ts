// Statusbar: `2 sessions, 63 %`, while any is live.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { IStatusBar } from "@jupyterlab/statusbar";
import { Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { attribute, h, text } from "../../src/dom";
import { ID } from "./commands";
import { statusWords } from "./told";
import { IBatch } from "./token";

export const statusBar: JupyterFrontEndPlugin<void> = {
  id: "@ipybatch/lab:status-bar",
  description: "How far the live sessions are, in the status bar.",
  autoStart: true,
  requires: [IBatch],
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, { sessions }: IBatch, bar: IStatusBar | null) => {
    if (!bar) return;
    const button = h("button", "status");
    button.type = "button";
    button.addEventListener("click", () => void app.commands.execute(ID.show));
    const item = new Widget({ node: h("div", "status-item", button) });
    const changed = new Signal<Widget, void>(item);
    let shown = "";
    sessions.onChange(() => {
      const words = statusWords(sessions.live.map(({ item }) => item));
      text(button, words);
      attribute(button, "title", words && "Show batch sessions");
      if ((words === "") !== (shown === "")) changed.emit();
      shown = words;
    });
    bar.registerStatusItem("@ipybatch/lab:status", {
      item,
      align: "left",
      rank: 10,
      isActive: () => sessions.live.length > 0,
      activeStateChanged: changed,
    });
  },
};
