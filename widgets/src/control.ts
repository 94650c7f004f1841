// Control: the kernel's channel for what must not wait behind a cell.
//
// By the protocol it takes what the shell channel takes, on a socket of its own. ipykernel 6, which has no
// subshells, reads it in a thread of its own, and executes there while a cell blocks the main thread: nothing is
// interrupted, and no other message of the user's is read out of turn.

/** The parts of a kernel connection that build and send a control message. */
export interface Controlled {
  readonly clientId: string;
  readonly username: string;
  readonly info: Promise<{ implementation?: string }>;
  sendControlMessage(message: object, expectReply: boolean, disposeOnDone: boolean): { done: Promise<unknown> };
}

export async function executeByControl(kernel: Controlled, code: string): Promise<void> {
  const header = {
    date: new Date().toISOString(),
    msg_id: crypto.getRandomValues(new Uint32Array(4)).join("-"), // randomUUID wants https
    msg_type: "execute_request",
    session: kernel.clientId,
    username: kernel.username,
    version: "5.2",
  };
  // The cell that runs may ask for input: what we say about it holds for that cell as well.
  const asks = { user_expressions: {}, allow_stdin: true, stop_on_error: false };
  const content = { code, silent: true, store_history: false, ...asks };
  const message = { channel: "control", header, parent_header: {}, metadata: {}, content, buffers: [] };
  await kernel.sendControlMessage(message, true, true).done;
}
