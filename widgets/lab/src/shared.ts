// Shared: the plugin that keeps the sessions current; the others show them.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { URLExt } from "@jupyterlab/coreutils";
import { ServerConnection } from "@jupyterlab/services";
import { ISettingRegistry } from "@jupyterlab/settingregistry";
import { Api } from "./api";
import { Feed } from "./feed";
import { Sessions } from "./sessions";
import type { Settings } from "./settings";
import { IBatch, now_s, PLUGIN } from "./token";
import { Verbs } from "./verbs";

export const BASE = "ipybatch/api/v1";

export const shared: JupyterFrontEndPlugin<IBatch> = {
  id: PLUGIN,
  description: "Keeps the batch sessions of the user current.",
  autoStart: true,
  provides: IBatch,
  optional: [ISettingRegistry],
  activate: (app: JupyterFrontEnd, registry: ISettingRegistry | null) => {
    const style = document.createElement("style");
    style.textContent = STYLE;
    document.head.append(style);
    const { serverSettings, events } = app.serviceManager;
    const api = new Api((path, init = {}) =>
      ServerConnection.makeRequest(URLExt.join(serverSettings.baseUrl, BASE, path), init, serverSettings),
    );
    const settings: Settings = { pollSeconds: 10, notify: "all", notifyAfterSeconds: 10 };
    const sessions = new Sessions();
    const around = { isVisible: () => !document.hidden, poll_s: () => settings.pollSeconds, now_s };
    const feed = new Feed(api, sessions, around);
    events?.stream.connect((_, emission) => feed.receive(emission));
    void registry?.load(PLUGIN).then((loaded) => follow(loaded, settings));
    void app.restored.then(() => feed.start());
    return { api, sessions, feed, verbs: new Verbs(api, sessions, now_s), settings };
  },
};

function follow(loaded: ISettingRegistry.ISettings, settings: Settings): void {
  const read = (): void => {
    for (const name of Object.keys(settings)) Object.assign(settings, { [name]: loaded.get(name).composite });
  };
  read();
  loaded.changed.connect(read);
}
