// Hooks: what the side bar has done for it by JupyterLab.
import type { Schedule, ScheduleAnswer, ScheduleVerb, SessionItem, Submission, Verb } from "../../src/wire";

export interface Hooks {
  open(item: SessionItem): void;
  press(item: SessionItem, verb: Verb): void;
  notebook(item: SessionItem): void;
  download(item: SessionItem): void;
  interrupt(kernel: string): void;
  shutDown(kernel: string): void;
  /** Cancel a submission that waits. */
  withdraw(submission: Submission): void;
  schedule(name: string, verb: ScheduleVerb, answer?: ScheduleAnswer): void;
  /** Delete a schedule, once its user has said so again. */
  unschedule(schedule: Schedule): void;
  /** Open the session that the latest time of a schedule became. */
  openRun(schedule: Schedule): void;
  /** Open the form of a new batch, with one of the user's own templates if that is named. */
  create(template?: string): void;
  /** Delete a template, once its user has said so again. */
  discard(template: string): void;
  refresh(): void;
  reload(): void;
}
