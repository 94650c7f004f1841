// Side: the side bar in JupyterLab's left area.
import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette } from "@jupyterlab/apputils";
import { Widget } from "@lumino/widgets";
import type { Schedule, ScheduleAnswer, ScheduleVerb } from "../../src/wire";
import { CATEGORY, ID } from "./commands";
import { LOST } from "./shelf";
import { Sidebar } from "./sidebar";
import { sign } from "./sign";
import { sure } from "./sure";
import { IBatch, now_s } from "./token";

const TICK_MS = 1000;

export const side: JupyterFrontEndPlugin<void> = {
  id: "@ipybatch/lab:side-bar",
  description: "The side bar of batch sessions.",
  autoStart: true,
  requires: [IBatch],
  optional: [ICommandPalette, ILayoutRestorer],
  activate: (app: JupyterFrontEnd, batch: IBatch, palette: ICommandPalette | null, restorer: ILayoutRestorer | null) => {
    const widget = new SideWidget(app, batch);
    app.shell.add(widget, "left", { rank: 550, type: "Batch sessions" });
    restorer?.add(widget, "ipybatch-sessions");
    app.commands.addCommand(ID.show, { label: "Show Batch Sessions", icon: sign, execute: () => app.shell.activateById(widget.id) });
    palette?.addItem({ command: ID.show, category: CATEGORY });
  },
};

class SideWidget extends Widget {
  private readonly sidebar: Sidebar;
  private frame = 0;

  constructor(app: JupyterFrontEnd, batch: IBatch) {
    super();
    const run = (command: string, args: Record<string, string> = {}): void => void app.commands.execute(command, args);
    const listing = {
      search: (name: string, state: string) => {
        batch.sessions.search({ name, state });
        this.draw();
        void batch.feed.refresh();
      },
      more: () => batch.feed.more(),
    };
    const hooks = {
      open: ({ id, name }: { id: string; name: string }) => run(ID.open, { id, name }),
      press: ({ id }: { id: string }, verb: Parameters<typeof batch.verbs.press>[1]) => void batch.verbs.press(id, verb),
      notebook: ({ id }: { id: string }) => run(ID.notebook, { id }),
      download: ({ id }: { id: string }) => run(ID.download, { id }),
      interrupt: (kernel: string) => run(ID.interrupt, { kernel }),
      shutDown: (kernel: string) => run(ID.shutDown, { kernel }),
      withdraw: ({ id }: { id: string }) => void batch.verbs.withdraw(id),
      schedule: (name: string, verb: ScheduleVerb, answer?: ScheduleAnswer) => void batch.verbs.schedule(name, { verb, ...(answer && { answer }) }),
      unschedule: async ({ name }: { name: string }) => {
        const body = "Nothing more is submitted by it. What it has submitted stays.";
        if (await sure(`Delete schedule ${name}?`, body, "Delete")) await batch.verbs.unschedule(name);
      },
      openRun: async (schedule: Schedule) => {
        const session = await batch.verbs.runOf(schedule);
        if (session) run(ID.open, { id: session.id, name: session.name });
      },
      create: (template = "") => run(ID.create, { template }),
      discard: (name: string) => void batch.verbs.discard(name, () => sure(`Delete template ${name}?`, LOST, "Delete")),
      refresh: () => void batch.feed.refresh(),
      reload: () => location.reload(),
    };
    this.sidebar = new Sidebar(batch.sessions, batch.verbs, listing, hooks, VERSION);
    this.id = "ipybatch-sessions";
    this.title.icon = sign;
    this.title.caption = "Batch sessions";
    this.addClass("ipybatch");
    this.addClass("ib-in-side");
    this.node.append(this.sidebar.node);
    batch.sessions.onChange(() => this.draw());
    setInterval(() => this.sidebar.isOld() && this.draw(), TICK_MS);
    this.draw();
  }

  protected override onAfterShow(): void {
    this.draw();
  }

  /** At most once a frame, and only what is seen. */
  private draw(): void {
    if (!this.isVisible && this.isAttached) return;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.sidebar.render(now_s());
    });
  }
}
