// Settings: what a user can choose in JupyterLab's settings; schema/sessions.json says what each means.
export interface Settings {
  pollSeconds: number;
  notify: "all" | "failures" | "none";
  notifyAfterSeconds: number;
}
