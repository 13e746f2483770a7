/** How a client reaches what runs its calls: one small interface, over HTTP and over WebSocket. */

import type { Frame } from "./frame.js";
import type { Start } from "./request.js";

/** What a cancel found. */
export type CancelOutcome = "cancelled" | "already_finished";

/** What is known of a call, as `GET /tasks/{id}` shows it. */
export interface Task {
  readonly task_id: string;
  readonly request_id: string;
  readonly command?: string;
  readonly workflow_id?: string;
  readonly status: string;
  readonly accepted_at: number;
  readonly next_seq: number;
  readonly [more: string]: unknown;
}

/** What can be called, as `GET /v2/commands` shows it. */
export interface CommandDescription {
  readonly description: string;
  readonly streaming: boolean;
  readonly input_schema: Readonly<Record<string, unknown>>;
  readonly [more: string]: unknown;
}

/** A workflow, as `GET /v2/commands` shows it; steps that run at the same time stand under `parallel`. */
export interface WorkflowDescription {
  readonly description?: string;
  readonly input_schema: Readonly<Record<string, unknown>>;
  readonly steps: readonly Readonly<Record<string, unknown>>[];
  readonly [more: string]: unknown;
}

/** All that can be called, by name. */
export interface Description {
  readonly commands: Readonly<Record<string, CommandDescription>>;
  readonly workflows: Readonly<Record<string, WorkflowDescription>>;
}

/** How a server is, as `GET /health` shows it. */
export interface ServerHealth {
  readonly status: "starting" | "healthy" | "draining" | "unhealthy";
  readonly [more: string]: unknown;
}

/** The frames of one call as they come, not checked yet. */
export interface Reply {
  /**
   * Return the next frames; undefined once nothing more comes.
   *
   * @throws Dropped The connection broke.
   */
  next(): Promise<readonly Frame[] | undefined>;
  /**
   * Send an item to a command that takes a stream, or say that no more come.
   *
   * @throws CallError It cannot be sent.
   */
  tell(kind: "input" | "input_end", data?: unknown): void;
  /** Read no more. */
  close(): void;
}

/** Whose call it is, by each name it has. */
export interface CallNames {
  readonly taskId: string | undefined;
  readonly requestId: string | undefined;
}

/** A way to what runs calls. */
export interface Transport {
  /** Run a call that does not stream; return its terminal frame. */
  run(start: Start, signal: AbortSignal): Promise<Frame>;
  /** Open a call that streams. */
  open(start: Start, signal: AbortSignal): Promise<Reply>;
  /** Read a call's frames behind number `after`. */
  resume(names: CallNames, after: number, signal: AbortSignal): Promise<Reply>;
  cancel(id: string): Promise<CancelOutcome>;
  task(id: string): Promise<Task>;
  tasks(): Promise<readonly Task[]>;
  describe(): Promise<Description>;
  health(): Promise<ServerHealth>;
  close(): void;
}

/** A connection ended within a stream; what was read of it stands. */
export class Dropped extends Error {}
