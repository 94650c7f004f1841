// Sure: a question before something is lost.
import { Dialog, showDialog } from "@jupyterlab/apputils";

export async function sure(title: string, body: string, label: string): Promise<boolean> {
  const answer = await showDialog({ title, body, buttons: [Dialog.cancelButton(), Dialog.warnButton({ label })] });
  return answer.button.accept;
}
