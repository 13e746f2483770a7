export { Client } from "./client.js";
export { CallCancelled, CallError, ConnectionFailed, PenstockError, RemoteProtocolError, ReplayTruncated, StreamTruncated, } from "./errors.js";
export { Stream } from "./stream.js";
