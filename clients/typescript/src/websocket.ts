/** The WebSocket transport: many calls on one socket; what is no call is asked over HTTP, at the same host. */

import { CallError, ConnectionFailed } from "./errors.js";
import type { Frame } from "./frame.js";
import { Inbox } from "./inbox.js";
import { errorOf } from "./outcome.js";
import type { Start } from "./request.js";
import { randomId } from "./request.js";
import { SharedSocket } from "./shared_socket.js";
import type { CallNames, CancelOutcome, Description, Reply, ServerHealth, Task, Transport } from "./transport.js";
import type { Address } from "./wire.js";
import { dial } from "./wire.js";

const DEFAULT_PATH = "/v2/ws";

/** Runs calls on a server over WebSockets. */
export class SocketTransport implements Transport {
  private readonly address: Address;
  private sockets: SharedSocket[] = [];
  private dialling: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly settings: Address & { readonly silenceS: number },
    private readonly http: Transport,
  ) {
    const url = new URL(settings.url);
    if (url.pathname === "/") url.pathname = DEFAULT_PATH;
    this.address = { url, apiKey: settings.apiKey };
  }

  async run(start: Start, signal: AbortSignal): Promise<Frame> {
    const inbox = await this.start(start, signal);
    try {
      return await firstOf(inbox);
    } finally {
      inbox.close();
    }
  }

  async open(start: Start, signal: AbortSignal): Promise<Reply> {
    const inbox = await this.start(start, signal);
    await firstOf(inbox);
    return inbox;
  }

  async resume(names: CallNames, after: number, signal: AbortSignal): Promise<Reply> {
    const { taskId, requestId } = await this.both(names);
    const [socket, inbox] = await this.attached(taskId, requestId, signal);
    // A name may be another call's by now; the request id never is.
    socket.send({ type: "resume", task_id: requestId, after });
    return inbox;
  }

  async cancel(id: string): Promise<CancelOutcome> {
    for (const socket of this.sockets) {
      const name = socket.has(id);
      if (name !== undefined) return socket.cancel(name);
    }
    return this.http.cancel(id);
  }

  task(id: string): Promise<Task> {
    return this.http.task(id);
  }

  tasks(): Promise<readonly Task[]> {
    return this.http.tasks();
  }

  describe(): Promise<Description> {
    return this.http.describe();
  }

  health(): Promise<ServerHealth> {
    return this.http.health();
  }

  close(): void {
    for (const socket of this.sockets) socket.close();
    this.sockets = [];
    this.http.close();
  }

  private async start(start: Start, signal: AbortSignal): Promise<Inbox> {
    if (start.idempotencyKey !== undefined) {
      throw new CallError("an idempotencyKey travels over HTTP only; give the client an http URL", "not_implemented");
    }
    const name = start.taskId ?? randomId(); // calls on a socket are told apart by it
    const [socket, inbox] = await this.attached(name, undefined, signal);
    const about = { task_id: name, correlation_id: start.correlationId, more_input: start.moreInput };
    socket.send({ type: start.kind, ...start.body, ...about });
    return inbox;
  }

  /** Return both names of a call, of which the frames bear one and the other never is another call's. */
  private async both(names: CallNames): Promise<{ taskId: string; requestId: string }> {
    const { taskId, requestId } = names;
    if (taskId !== undefined && requestId !== undefined) return { taskId, requestId };
    const task = await this.http.task(requestId ?? taskId ?? "");
    return { taskId: task.task_id, requestId: task.request_id };
  }

  private async attached(
    name: string,
    alias: string | undefined,
    signal: AbortSignal,
  ): Promise<readonly [SharedSocket, Inbox]> {
    const socket = await this.shared(name);
    if (signal.aborted || !socket.open) throw new ConnectionFailed("the connection ended before it was used", false);
    if (!socket.takes(name)) return this.attached(name, alias, signal); // another call was faster
    const inbox = new Inbox(name, alias, socket);
    socket.attach(inbox);
    signal.addEventListener("abort", () => inbox.close(), { once: true });
    return [socket, inbox];
  }

  /** Return a socket that takes a call of this name; many calls that need one wait for the same. */
  private shared(name: string): Promise<SharedSocket> {
    const found = this.dialling.then(async () => {
      const open = this.sockets.find((socket) => socket.takes(name));
      if (open !== undefined) return open;
      const socket = new SharedSocket(this.settings.silenceS);
      socket.carry(await dial(this.address, socket));
      this.sockets = [...this.sockets.filter((each) => each.open), socket];
      return socket;
    });
    this.dialling = found.catch(() => undefined);
    return found;
  }
}

/**
 * Return the first frame of a call.
 *
 * @throws CallError It is a refusal.
 */
async function firstOf(inbox: Inbox): Promise<Frame> {
  const frame = await inbox.first();
  if (frame.seq === undefined && frame.status === "error") throw errorOf(frame);
  return frame;
}
