/** What a server says of a call (docs/protocol.md, section 2), as it stands on the wire. */

import type { Detail } from "./errors.js";
import { RemoteProtocolError } from "./errors.js";

/** What was measured, times in milliseconds; engines add their own. */
export type Metrics = Readonly<Record<string, unknown>>;

/** One frame.  Frames without `seq` are envelopes: they belong to no call in flight. */
export interface Frame {
  readonly type: string;
  readonly status: string;
  readonly data?: unknown;
  readonly error?: string;
  readonly timestamp?: number;
  readonly version?: string;
  readonly command?: string;
  readonly workflow_id?: string;
  readonly step?: string;
  readonly task_id?: string;
  readonly seq?: number;
  readonly request_id?: string;
  readonly position?: number;
  readonly code?: string;
  readonly retryable?: boolean;
  readonly retry_after_s?: number;
  readonly details?: readonly Detail[];
  readonly first_seq?: number;
  readonly reason?: string;
  readonly cancel?: Readonly<Record<string, number>>;
  readonly metrics?: Metrics;
}

const SHOWN = 120; // characters of foreign text that a message shows

/**
 * Read one line or message.
 *
 * @throws RemoteProtocolError It is no JSON object with a type.
 */
export function parseFrame(text: string): Frame {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (typeof value === "object" && value !== null && typeof (value as Frame).type === "string") {
    return value as Frame;
  }
  throw new RemoteProtocolError(`the server sent ${excerpt(text)}, which is no frame`);
}

/** Whether a frame is the last of its call. */
export function endsCall(frame: Frame): boolean {
  const { status, seq } = frame;
  return seq !== undefined && (status === "completed" || status === "error" || status === "cancelled");
}

/** Return the beginning of foreign text, for a message. */
export function excerpt(text: string): string {
  return text === "" ? "no body" : JSON.stringify(text.slice(0, SHOWN));
}
