/** A real server in a process of its own, for tests. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The client's folder; tests run from `dist/tests`. */
export const HOME = fileURLToPath(new URL("../../", import.meta.url));
export const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));

const START_MS = 60_000;

/** A server that is ready. */
export interface Served {
  readonly url: string;
  readonly stop: () => Promise<void>;
}

/** Serve the project of the tests on a free port of this machine. */
export async function serve(...flags: string[]): Promise<Served> {
  const command = ["-m", "penstock.cli", "run", `${HOME}tests/project`, "--port", "0", ...flags];
  const child = spawn(python(), command, { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stderr.on("data", (bytes: Buffer) => (said += bytes.toString()));
  const timer = setTimeout(() => child.kill("SIGKILL"), START_MS);
  for await (const line of createInterface(child.stdout)) {
    said += line;
    const found = /ready on (http:\S+)/.exec(line);
    if (found?.[1] === undefined) continue;
    clearTimeout(timer);
    return { url: found[1], stop: () => stop(child) };
  }
  clearTimeout(timer);
  throw new Error(`the server did not start: ${said}`);
}

/** The interpreter that has penstock. */
export function python(): string {
  const own = `${ROOT}.venv/bin/python`;
  return process.env["PENSTOCK_TEST_PYTHON"] ?? (existsSync(own) ? own : "python3");
}

async function stop(child: ReturnType<typeof spawn>): Promise<void> {
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  child.kill("SIGTERM"); // told twice, it does not wait for calls
  await ended;
}
