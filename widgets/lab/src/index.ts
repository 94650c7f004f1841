// Lab: the extension: what each plugin adds to JupyterLab, over one store of sessions.
//
//   shared (store, feed, verbs)  <--  commands, side bar, tabs, status bar, running panel, notifications, "New batch"
import { commands } from "./commands";
import { newBatch } from "./newtab";
import { notifications } from "./notifications";
import { running } from "./running";
import { shared } from "./shared";
import { side } from "./side";
import { statusBar } from "./statusbar";

export default [shared, commands, side, statusBar, running, notifications, newBatch];
