/** Reading HTTP responses: streams of frames, refusals, and what is none of penstock's. */

import { CallError, PenstockError, RemoteProtocolError } from "./errors.js";
import type { Frame } from "./frame.js";
import { excerpt, parseFrame } from "./frame.js";
import { EventSplitter, LineSplitter } from "./lines.js";
import { codeOfStatus, errorOf } from "./outcome.js";
import type { Reply } from "./transport.js";
import { Dropped } from "./transport.js";

export const NDJSON = "application/x-ndjson";
export const SSE = "text/event-stream";

/** A streamed response, giving frames. */
export class HttpReply implements Reply {
  private readonly reader: ReadableStreamDefaultReader<Uint8Array>;
  private readonly texts: LineSplitter | EventSplitter;
  private readonly watch: ReturnType<typeof setInterval>;
  private heard = true;

  /**
   * @param body Of the response.
   * @param kind Its media type: `NDJSON` or `SSE`.
   * @param drop Ends the request; a body that is cancelled may still be read to its end in the background.
   * @param silenceS Seconds without a byte after which the connection counts as broken: servers send a sign
   *   of life after 15.
   */
  constructor(
    body: ReadableStream<Uint8Array>,
    kind: string,
    private readonly drop: () => void,
    silenceS: number,
  ) {
    this.reader = body.getReader();
    this.texts = kind === SSE ? new EventSplitter() : new LineSplitter();
    this.watch = setInterval(() => {
      if (!this.heard) this.close(); // what reads finds the connection broken
      this.heard = false;
    }, 1000 * silenceS);
  }

  async next(): Promise<readonly Frame[] | undefined> {
    for (;;) {
      const bytes = await this.read();
      if (bytes === undefined) {
        this.close();
        return undefined;
      }
      const frames: Frame[] = [];
      for (const text of this.texts.feed(bytes)) {
        const frame = parseFrame(text);
        if (frame.type === "task") frames.push(frame);
      }
      if (frames.length > 0) return frames;
    }
  }

  tell(): void {
    throw noInput();
  }

  close(): void {
    clearInterval(this.watch);
    this.drop();
  }

  private async read(): Promise<Uint8Array | undefined> {
    try {
      const { value } = await this.reader.read();
      this.heard = true;
      return value;
    } catch (error) {
      this.close();
      throw new Dropped(`the connection broke within the stream (${describe(error)})`, { cause: error });
    }
  }
}

/** Return the refusal of items that are to follow a request. */
export function noInput(): CallError {
  return new CallError("input streams do not travel over HTTP; give the client a ws URL", "not_implemented");
}

/** Return the error that a response which is no success stands for. */
export function refusal(response: Response, body: string): PenstockError {
  const frame = frameIn(body);
  const answered = { status: response.status, retryAfterS: retryAfter(response) };
  if (frame?.status === "error") return errorOf(frame, answered);
  if (response.status < 400) return foreign(response, body);
  const what = `${response.url} answered HTTP ${response.status} with ${excerpt(body)}`;
  return new CallError(`${what}, which is no answer of penstock's`, codeOfStatus(response.status), {
    retryAfterS: answered.retryAfterS,
  });
}

/** Return the error for an answer that penstock never gives. */
export function foreign(response: Response, body: string): RemoteProtocolError {
  const kind = mediaType(response) || "no content type";
  const what = `${response.url} answered HTTP ${response.status} with ${kind}, ${excerpt(body)}`;
  return new RemoteProtocolError(`${what}: is it penstock that serves there?`);
}

/** Return what a body holds, if that is a frame. */
export function frameIn(body: string): Frame | undefined {
  try {
    return parseFrame(body);
  } catch {
    return undefined;
  }
}

export function mediaType(response: Response): string {
  return (response.headers.get("content-type") ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}

/** Return what happened to a connection: Node hides it in the cause of the cause. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? describe(error.cause) : error.message || error.name;
}

function retryAfter(response: Response): number | undefined {
  const text = response.headers.get("retry-after") ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}
