/** What a caller asks for, as the request that travels (docs/protocol.md, section 4). */

import { CallError } from "./errors.js";

/** A call's input: what JSON can say. */
export type Input = Readonly<Record<string, unknown>>;

/** What becomes of a call when its last reader has left. */
export type OnDisconnect = "cancel" | "continue" | { readonly graceS: number };

/** Which runner of a gateway a call is for; elsewhere it means nothing. */
export interface Route {
  readonly labels?: Readonly<Record<string, string>>;
  readonly sticky?: string;
}

/** How a call is to run. */
export interface CallOptions {
  /** A name for the call, by which it can be cancelled and read again; one is made up without it. */
  readonly taskId?: string;
  /** Total budget, in seconds. */
  readonly timeout?: number;
  /** What becomes of the call when its reader leaves; without it the command's setting, else `cancel`. */
  readonly onDisconnect?: OnDisconnect;
  /** Which runner of a gateway it is for. */
  readonly route?: Route;
  /** Handed to the command as it is. */
  readonly outputConfig?: Input;
  /** Aborting cancels the call, on the server as well. */
  readonly signal?: AbortSignal;
  /** The same request under the same key runs once, so it can be sent again safely; over HTTP only. */
  readonly idempotencyKey?: string;
  /** Whether `stream.frames()` shows the place in the queue and progress as well. */
  readonly notes?: boolean;
  /** Whether `stream.send` gives more items to a command that takes a stream; over WebSocket only. */
  readonly moreInput?: boolean;
  /** `X-Request-Id`, which logs show; one is made up without it. */
  readonly correlationId?: string;
}

/** A call that is to be opened. */
export interface Start {
  readonly kind: "command" | "workflow";
  readonly taskId: string | undefined;
  readonly correlationId: string;
  readonly idempotencyKey: string | undefined;
  readonly timeout: number | undefined;
  readonly moreInput: boolean;
  /** Nobody else ever gave a call the name that this one has. */
  readonly ownName: boolean;
  readonly body: Readonly<Record<string, unknown>>;
}

/** What a call runs. */
export interface Target {
  readonly kind: "command" | "workflow";
  readonly name: string;
  readonly isStream: boolean;
}

/** Return 32 hex digits that nobody guesses. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Return the request for a call.
 *
 * It is named here, so that it can be found again before the server has said anything.  Not so where it has
 * an idempotency key: the same request must then have the same body each time, or it is a conflict.
 *
 * @throws CallError `invalid_argument`: JSON cannot say the input.
 */
export function startOf(target: Target, input: Input, options: CallOptions): Start {
  const named = options.idempotencyKey !== undefined ? options.taskId : (options.taskId ?? randomId());
  return {
    kind: target.kind,
    taskId: named,
    correlationId: options.correlationId ?? randomId(),
    idempotencyKey: options.idempotencyKey,
    timeout: options.timeout,
    moreInput: options.moreInput === true,
    ownName: named !== options.taskId,
    body: {
      ...(target.kind === "command" ? { command: target.name } : { workflow_id: target.name }),
      input: checked(input),
      is_stream: target.isStream,
      ...given("task_id", named),
      ...given("output_config", options.outputConfig),
      ...given("notes", options.notes),
      ...given("on_disconnect", leaving(options.onDisconnect)),
      ...given("timeout", options.timeout),
      ...given("route", options.route),
    },
  };
}

function given(name: string, value: unknown): Record<string, unknown> {
  return value === undefined ? {} : { [name]: value };
}

function leaving(wish: OnDisconnect | undefined): unknown {
  return typeof wish === "object" ? { grace_s: wish.graceS } : wish;
}

/**
 * Return a value that JSON can say; JSON.stringify writes NaN as null and drops functions in silence.
 *
 * @throws CallError `invalid_argument`: it cannot be said.
 */
export function checked<T>(input: T): T {
  const say = (what: string, key: string): never => {
    throw new CallError(`the input cannot be sent: ${key} is ${what}`, "invalid_argument");
  };
  try {
    JSON.stringify(input, (key, value: unknown) => {
      if (typeof value === "number" && !Number.isFinite(value)) return say(String(value), key);
      if (typeof value === "function" || typeof value === "symbol") return say(`a ${typeof value}`, key);
      return value;
    });
  } catch (error) {
    if (error instanceof CallError) throw error;
    throw new CallError(`the input cannot be sent: ${String(error)}`, "invalid_argument");
  }
  return input;
}
