/** A client of penstock, for browsers and Node. */

export type { Retry } from "./backoff.js";
export { Client } from "./client.js";
export type { ClientOptions } from "./client.js";
export {
  CallCancelled,
  CallError,
  ConnectionFailed,
  PenstockError,
  RemoteProtocolError,
  ReplayTruncated,
  StreamTruncated,
} from "./errors.js";
export type { Detail } from "./errors.js";
export type { Frame, Metrics } from "./frame.js";
export type { CallOptions, Input, OnDisconnect, Route } from "./request.js";
export { Stream } from "./stream.js";
export type {
  CancelOutcome,
  CommandDescription,
  Description,
  ServerHealth,
  Task,
  WorkflowDescription,
} from "./transport.js";
