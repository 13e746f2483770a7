/** The HTTP transport, on `fetch` (docs/protocol.md, section 5). */

import { ConnectionFailed, PenstockError } from "./errors.js";
import type { Frame } from "./frame.js";
import { HttpReply, NDJSON, SSE, describe, foreign, frameIn, mediaType, noInput, refusal } from "./http_reply.js";
import type { Start } from "./request.js";
import type { CallNames, CancelOutcome, Description, Reply, ServerHealth, Task, Transport } from "./transport.js";

const SHORT_S = 30; // for a question that no model has to answer
const MARGIN_S = 10; // beyond a call's own budget, in which the server tells that it was used up
const JSON_TYPE = "application/json";

/** What a request is made of. */
interface Asking {
  readonly accept: string;
  readonly signal: AbortSignal;
  readonly start?: Start;
}

/** Where a server is, and how it is spoken to. */
export interface HttpSettings {
  readonly url: string;
  readonly apiKey: string | undefined;
  readonly fetch: typeof globalThis.fetch;
  readonly silenceS: number;
  /** How streams travel. */
  readonly form: "ndjson" | "sse";
}

/** Runs calls on a server. */
export class HttpTransport implements Transport {
  private readonly closing = new AbortController();

  constructor(private readonly settings: HttpSettings) {}

  private get accept(): string {
    return this.settings.form === "sse" ? SSE : NDJSON;
  }

  async run(start: Start, signal: AbortSignal): Promise<Frame> {
    const patience = start.timeout === undefined ? undefined : start.timeout + MARGIN_S;
    const [response, body] = await this.within(patience, signal, async (bounded) => {
      const answered = await this.execute(start, { accept: JSON_TYPE, signal: bounded });
      return [answered, await this.text(answered)] as const;
    });
    const frame = frameIn(body);
    // The answer of a call that failed has the status of its code: only a frame with a number tells them apart.
    if (frame?.seq !== undefined) return frame;
    throw response.ok ? foreign(response, body) : refusal(response, body);
  }

  async open(start: Start, signal: AbortSignal): Promise<Reply> {
    if (start.moreInput) throw noInput();
    const { accept } = this;
    return this.streamed(signal, (bounded) => this.execute(start, { accept, signal: bounded }));
  }

  async resume(names: CallNames, after: number, signal: AbortSignal): Promise<Reply> {
    // A name may be another call's by now; the request id never is.
    const path = `${pathOf(names.requestId ?? names.taskId ?? "")}/events?after=${after}`;
    return this.streamed(signal, (bounded) => this.send("GET", path, { accept: this.accept, signal: bounded }));
  }

  async cancel(id: string): Promise<CancelOutcome> {
    return (await this.ask<{ outcome: CancelOutcome }>("POST", `${pathOf(id)}/cancel`)).outcome;
  }

  task(id: string): Promise<Task> {
    return this.ask("GET", pathOf(id));
  }

  async tasks(): Promise<readonly Task[]> {
    return (await this.ask<{ tasks: Task[] }>("GET", "/tasks")).tasks;
  }

  describe(): Promise<Description> {
    return this.ask("GET", "/v2/commands");
  }

  health(): Promise<ServerHealth> {
    return this.ask("GET", "/health", 503);
  }

  close(): void {
    this.closing.abort();
  }

  private execute(start: Start, asking: Asking): Promise<Response> {
    return this.send("POST", start.kind === "command" ? "/v2/execute" : "/v2/workflow", { ...asking, start });
  }

  /** Return the answer to a question that no model has to answer. */
  private async ask<T>(method: string, path: string, also = 200): Promise<T> {
    const [response, body] = await this.within(SHORT_S, undefined, async (signal) => {
      const answered = await this.send(method, path, { accept: JSON_TYPE, signal });
      return [answered, await this.text(answered)] as const;
    });
    if (!response.ok && response.status !== also) throw refusal(response, body);
    try {
      return JSON.parse(body) as T;
    } catch {
      throw foreign(response, body);
    }
  }

  private async streamed(signal: AbortSignal, ask: (bounded: AbortSignal) => Promise<Response>): Promise<Reply> {
    const own = new AbortController();
    const drop = (): void => own.abort();
    const unlink = link(own, signal, this.closing.signal);
    try {
      const response = await ask(own.signal);
      if (response.status !== 200) throw refusal(response, await this.text(response));
      const kind = mediaType(response);
      if (![NDJSON, SSE].includes(kind) || response.body === null) {
        drop();
        throw foreign(response, "");
      }
      return new HttpReply(response.body, kind, () => (unlink(), drop()), this.settings.silenceS);
    } catch (error) {
      unlink();
      throw error;
    }
  }

  /** Do something that ends after `seconds`, by `signal`, or when the client is closed. */
  private async within<T>(
    seconds: number | undefined,
    signal: AbortSignal | undefined,
    work: (bounded: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const own = new AbortController();
    const unlink = link(own, signal, this.closing.signal);
    const late = (): void => own.abort(new Error(`no answer within ${seconds} s`));
    const timer = seconds === undefined ? undefined : setTimeout(late, 1000 * seconds);
    try {
      return await work(own.signal);
    } finally {
      clearTimeout(timer);
      unlink();
    }
  }

  private async send(method: string, path: string, asking: Asking): Promise<Response> {
    const { url, apiKey } = this.settings;
    const headers: Record<string, string> = { accept: asking.accept };
    if (apiKey !== undefined) headers["authorization"] = `Bearer ${apiKey}`;
    const init: RequestInit = { method, headers, signal: asking.signal, redirect: "manual", cache: "no-store" };
    if (asking.start !== undefined) {
      headers["content-type"] = JSON_TYPE;
      headers["x-request-id"] = asking.start.correlationId;
      if (asking.start.idempotencyKey !== undefined) headers["idempotency-key"] = asking.start.idempotencyKey;
      init.body = JSON.stringify(asking.start.body);
    }
    try {
      return await this.settings.fetch(url + path, init);
    } catch (error) {
      throw this.failed(error);
    }
  }

  private async text(response: Response): Promise<string> {
    try {
      return await response.text();
    } catch (error) {
      if (error instanceof PenstockError) throw error;
      throw new ConnectionFailed(`the connection broke within the answer (${describe(error)})`, true, error);
    }
  }

  private failed(error: unknown): ConnectionFailed {
    const what = describe(error);
    if (!neverSent(error)) {
      return new ConnectionFailed(`${this.settings.url} went away before it answered (${what})`, true, error);
    }
    const advice = "start one with `penstock run PROJECT`, or check the address";
    return new ConnectionFailed(`no server answers at ${this.settings.url} (${what}): ${advice}`, false, error);
  }
}

/** Have `own` aborted by any of `others`; return what ends that. */
function link(own: AbortController, ...others: (AbortSignal | undefined)[]): () => void {
  const abort = (): void => own.abort();
  for (const other of others) {
    if (other?.aborted === true) abort();
    other?.addEventListener("abort", abort);
  }
  return () => others.forEach((other) => other?.removeEventListener("abort", abort));
}

const NEVER_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"]);

/** Whether nothing can have reached the server; browsers do not tell, so there it counts as sent. */
function neverSent(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return NEVER_SENT.has(String((error as { code?: unknown }).code)) || neverSent(error.cause);
}

function pathOf(id: string): string {
  return `/tasks/${encodeURIComponent(id)}`;
}
