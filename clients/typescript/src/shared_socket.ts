/** Many calls on one WebSocket, told apart by their names (docs/protocol.md, section 7). */

import { CallError, ConnectionFailed } from "./errors.js";
import type { Frame } from "./frame.js";
import { endsCall, parseFrame } from "./frame.js";
import type { Inbox } from "./inbox.js";
import type { CancelOutcome } from "./transport.js";
import type { Listener, Wire } from "./wire.js";

const MAX_CALLS = 256; // that a server takes on one socket

interface Waiting {
  resolve(outcome: CancelOutcome): void;
  reject(error: Error): void;
}

/** One socket and its calls. */
export class SharedSocket implements Listener {
  private wire: Wire | undefined;
  private readonly calls = new Map<string, Inbox>();
  private readonly left = new Set<string>(); // until the server has let go of them
  private readonly cancels = new Map<string, Waiting[]>();
  private gone = false;
  private heard = true;
  private watch: ReturnType<typeof setInterval> | undefined;

  /** @param silenceS Seconds without a message, asked for by a ping, after which the connection counts as broken. */
  constructor(private readonly silenceS: number) {}

  /** Whether the connection stands. */
  get open(): boolean {
    return !this.gone;
  }

  /** Whether a call of this name can be opened here. */
  takes(name: string): boolean {
    return !this.gone && !this.calls.has(name) && !this.left.has(name) && this.calls.size < MAX_CALLS;
  }

  /** Return the name of a call that is read here, by that name or its request id. */
  has(id: string): string | undefined {
    if (this.calls.has(id)) return id;
    for (const inbox of this.calls.values()) if (inbox.requestId === id) return inbox.name;
    return undefined;
  }

  /** Begin: `wire` has been dialled. */
  carry(wire: Wire): void {
    this.wire = wire;
    if (this.gone) return;
    this.watch = setInterval(() => this.look(), (1000 * this.silenceS) / 2);
    (this.watch as { unref?(): void }).unref?.(); // in Node, an idle socket keeps no program alive by its timer
  }

  /** Route what comes for a call. */
  attach(inbox: Inbox): void {
    this.calls.set(inbox.name, inbox);
  }

  send(fields: Readonly<Record<string, unknown>>): void {
    if (this.gone) throw new ConnectionFailed("the connection has ended", false);
    this.wire?.send(JSON.stringify(fields));
  }

  /** Read a call no longer. */
  readonly leave = (inbox: Inbox): void => {
    if (this.gone || this.calls.get(inbox.name) !== inbox) return;
    this.calls.delete(inbox.name);
    if (inbox.ended) return;
    this.left.add(inbox.name);
    this.send({ type: "detach", task_id: inbox.name });
  };

  /** Cancel a call. */
  cancel(name: string): Promise<CancelOutcome> {
    return new Promise((resolve, reject) => {
      this.cancels.set(name, [...(this.cancels.get(name) ?? []), { resolve, reject }]);
      this.send({ type: "cancel", task_id: name });
    });
  }

  close(): void {
    this.wire?.close();
  }

  message(text: string): void {
    this.heard = true;
    let frame: Frame;
    try {
      frame = parseFrame(text);
    } catch (error) {
      this.closed(String(error));
      this.close();
      return;
    }
    this.route(frame, frame.task_id ?? "");
  }

  closed(reason: string): void {
    if (this.gone) return;
    this.gone = true;
    clearInterval(this.watch);
    for (const inbox of this.calls.values()) inbox.fail(reason);
    const error = new ConnectionFailed(`the connection broke before there was an answer (${reason})`, true);
    for (const waiting of [...this.cancels.values()].flat()) waiting.reject(error);
    this.calls.clear();
    this.cancels.clear();
  }

  private route(frame: Frame, name: string): void {
    if (frame.type === "cancel") this.answerCancels(name, frame.status);
    else if (frame.type === "detach") this.left.delete(name);
    else if (frame.type === "resume") this.finish(name);
    else if (frame.type === "task") this.deliver(frame, name);
  }

  private deliver(frame: Frame, name: string): void {
    // A call that is read here answers its cancel by its end; what ended it otherwise was faster.
    if (endsCall(frame)) this.answerCancels(name, frame.status === "cancelled" ? "cancelled" : "already_finished");
    if (this.left.has(name)) return;
    const inbox = this.find(name);
    inbox?.put(frame);
    if (inbox?.ended === true) this.calls.delete(inbox.name);
  }

  private finish(name: string): void {
    const inbox = this.find(name);
    inbox?.end();
    if (inbox !== undefined) this.calls.delete(inbox.name);
  }

  private find(id: string): Inbox | undefined {
    return this.calls.get(this.has(id) ?? id);
  }

  private answerCancels(name: string, outcome: string): void {
    for (const waiting of this.cancels.get(name) ?? []) {
      if (outcome === "cancelled" || outcome === "already_finished") waiting.resolve(outcome);
      else waiting.reject(new CallError(`no task ${name} is known there`, "not_found"));
    }
    this.cancels.delete(name);
  }

  private look(): void {
    if (!this.heard) {
      this.closed("the server fell silent: a ping was not answered");
      this.close();
      return;
    }
    this.heard = false;
    this.send({ type: "ping" });
  }
}
