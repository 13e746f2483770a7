/** `Client`: the same methods over HTTP and over WebSocket. */

import { Abort } from "./abort.js";
import type { Retry } from "./backoff.js";
import { Backoff, RETRY, safeToRepeat } from "./backoff.js";
import { CallCancelled, CallError, named } from "./errors.js";
import type { Frame } from "./frame.js";
import { HttpTransport } from "./http.js";
import { answerOf } from "./outcome.js";
import type { CallOptions, Input, OnDisconnect, Start, Target } from "./request.js";
import { startOf } from "./request.js";
import type { Source } from "./stream.js";
import { Stream } from "./stream.js";
import type { CancelOutcome, CommandDescription, Description, ServerHealth, Task, Transport } from "./transport.js";
import { SocketTransport } from "./websocket.js";

/** How a client is to work. */
export interface ClientOptions {
  /** This caller's key, where the server needs one. */
  readonly apiKey?: string;
  /** Used instead of the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
  /** Total budget of each call that names no other, in seconds. */
  readonly timeout?: number;
  /** What becomes of each call that says nothing of it when its reader leaves. */
  readonly onDisconnect?: OnDisconnect;
  /** Bounds of trying again. */
  readonly retry?: Partial<Retry>;
  /** How streams travel over HTTP: lines of JSON, or server-sent events. */
  readonly form?: "ndjson" | "sse";
  /** Seconds of silence after which a connection counts as broken; servers give a sign of life after 15. */
  readonly silence?: number;
}

/**
 * Runs commands on a server.
 *
 * ```ts
 * const client = new Client("http://127.0.0.1:8000");
 * const answer = await client.run("add", {a: 1, b: 2});
 * ```
 *
 * Under a `ws://` or `wss://` URL all calls share a WebSocket, and its host answers other questions over HTTP.
 * Every method raises `CallError` for what is refused, `ConnectionFailed` when nobody answers, and
 * `RemoteProtocolError` for an answer that is not penstock's.
 */
export class Client {
  private readonly transport: Transport;
  private readonly retry: Retry;
  private readonly defaults: CallOptions;

  /** @throws TypeError `url` is no http, https, ws or wss URL. */
  constructor(url: string | URL, options: ClientOptions = {}) {
    const { timeout, onDisconnect } = options;
    this.retry = { ...RETRY, ...options.retry };
    this.defaults = { ...(timeout !== undefined && { timeout }), ...(onDisconnect && { onDisconnect }) };
    this.transport = transportOf(new URL(url), options);
  }

  /** Run a command; return its answer, of a streaming command the last item. */
  run<T = unknown>(command: string, input: Input = {}, options: CallOptions = {}): Promise<T> {
    return this.answer<T>({ kind: "command", name: command, isStream: false }, input, options);
  }

  /** Return a command's stream.  The call is opened when it is first read. */
  stream<T = unknown>(command: string, input: Input = {}, options: CallOptions = {}): Stream<T> {
    return this.read<T>({ kind: "command", name: command, isStream: true }, input, options);
  }

  /** Return a workflow's stream: the items of its steps, then its output; `frames()` tells by `step` whose they are. */
  workflow<T = unknown>(workflowId: string, input: Input = {}, options: CallOptions = {}): Stream<T> {
    return this.read<T>({ kind: "workflow", name: workflowId, isStream: true }, input, options);
  }

  /** Run a workflow; return its output. */
  runWorkflow<T = unknown>(workflowId: string, input: Input = {}, options: CallOptions = {}): Promise<T> {
    return this.answer<T>({ kind: "workflow", name: workflowId, isStream: false }, input, options);
  }

  /** Return the stream of a call that was opened before, from behind frame number `after` on. */
  resume<T = unknown>(id: string, after = -1, signal?: AbortSignal): Stream<T> {
    const again = { idempotent: true, ownName: false, resumable: true, correlationId: undefined };
    return this.streamOf<T>({ ...again, open: undefined, taskId: id, after, signal });
  }

  /** Cancel a call by its task id or request id. */
  cancel(id: string): Promise<CancelOutcome> {
    return this.repeated(() => this.transport.cancel(id), true);
  }

  /** Return what is known of a call. */
  task(id: string): Promise<Task> {
    return this.repeated(() => this.transport.task(id), true);
  }

  /** Return what is known of this caller's calls, oldest first. */
  tasks(): Promise<readonly Task[]> {
    return this.repeated(() => this.transport.tasks(), true);
  }

  /** Return the commands that can be called, with schemas. */
  async commands(): Promise<Readonly<Record<string, CommandDescription>>> {
    return (await this.describe()).commands;
  }

  /** Return all that can be called, with schemas: commands and workflows. */
  describe(): Promise<Description> {
    return this.repeated(() => this.transport.describe(), true);
  }

  /** Return how the server is, also while it starts or stops. */
  health(): Promise<ServerHealth> {
    return this.transport.health();
  }

  /** Close the connections; calls that are being read are left. */
  close(): void {
    this.transport.close();
  }

  private read<T>(target: Target, input: Input, options: CallOptions): Stream<T> {
    const start = startOf(target, input, { ...this.defaults, ...options });
    return this.streamOf<T>({
      open: (signal) => this.transport.open(start, signal),
      idempotent: start.idempotencyKey !== undefined,
      ownName: start.ownName,
      resumable: !start.moreInput,
      correlationId: start.correlationId,
      taskId: start.taskId,
      after: -1,
      signal: options.signal,
    });
  }

  private streamOf<T>(call: Omit<Source, "transport" | "retry" | "cancel">): Stream<T> {
    const { transport, retry } = this;
    return new Stream<T>({ ...call, transport, retry, cancel: (id) => this.cancel(id) });
  }

  private async answer<T>(target: Target, input: Input, options: CallOptions): Promise<T> {
    const start = startOf(target, input, { ...this.defaults, ...options });
    try {
      return answerOf(await this.frame(start, options)) as T;
    } catch (error) {
      throw named(error, start.correlationId);
    }
  }

  private async frame(start: Start, options: CallOptions): Promise<Frame> {
    const { taskId } = start;
    const unnamed = (): Promise<never> => Promise.reject(new CallError("the call has no name", "not_found"));
    const abort = new Abort(options.signal, taskId === undefined ? unnamed : () => this.cancel(taskId));
    try {
      const run = (): Promise<Frame> => this.transport.run(start, abort.dropped);
      return await this.repeated(run, start.idempotencyKey !== undefined, abort.dropped);
    } catch (error) {
      if (!abort.asked) throw error;
      throw new CallCancelled(`call ${taskId ?? ""} was cancelled (reason: caller)`, "caller", abort.reason);
    } finally {
      abort.done();
    }
  }

  private async repeated<T>(work: () => Promise<T>, idempotent: boolean, signal?: AbortSignal): Promise<T> {
    const backoff = new Backoff(this.retry);
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const again = safeToRepeat(error, idempotent) && (await backoff.pause(signal, error.retryAfterS));
        if (!again) throw error;
      }
    }
  }
}

const SILENCE_S = 45;

function transportOf(url: URL, options: ClientOptions): Transport {
  const { protocol } = url;
  if (!["http:", "https:", "ws:", "wss:"].includes(protocol)) {
    throw new TypeError(`${url} is no server's URL; write it like http://127.0.0.1:8000`);
  }
  const silenceS = options.silence ?? SILENCE_S;
  const base = new URL(url);
  base.protocol = protocol.replace("ws", "http");
  if (base.protocol !== protocol) base.pathname = "/";
  const http = new HttpTransport({
    url: base.href.replace(/\/+$/, ""),
    apiKey: options.apiKey,
    fetch: options.fetch ?? globalThis.fetch.bind(globalThis), // a browser's fetch must be its window's
    silenceS,
    form: options.form ?? "ndjson",
  });
  return base.protocol === protocol ? http : new SocketTransport({ url, apiKey: options.apiKey, silenceS }, http);
}
