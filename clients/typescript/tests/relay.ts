/** A TCP relay that cuts its first connection after so many bytes towards the client. */

import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";

/** A relay that listens. */
export class Relay {
  connections = 0;
  carried = 0; // bytes towards the client
  private readonly server = createServer((near) => this.join(near));
  private readonly ends = new Set<Socket>();

  /**
   * @param target Where it leads.
   * @param cutAt Bytes after which the first connection is cut; it never is if they do not come.
   * @param final Whether nobody can connect after the cut.
   */
  constructor(
    private readonly target: URL,
    private readonly cutAt = Infinity,
    private readonly final = false,
  ) {}

  /** Begin; return the address in the place of the target's. */
  async listen(): Promise<string> {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const end of this.ends) end.destroy();
    if (!this.server.listening) return;
    this.server.close();
    await once(this.server, "close");
  }

  private join(near: Socket): void {
    this.connections += 1;
    let left = this.connections === 1 ? this.cutAt : Infinity;
    const far = connect(Number(this.target.port), this.target.hostname);
    const both = [near, far];
    for (const end of both) {
      this.ends.add(end);
      end.on("error", () => undefined);
      end.on("close", () => {
        this.ends.delete(end);
        both.forEach((other) => other.destroySoon());
      });
    }
    near.on("data", (bytes) => far.write(bytes));
    far.on("data", (bytes) => {
      const passed = bytes.subarray(0, left);
      left -= passed.length;
      this.carried += passed.length;
      near.write(passed);
      if (left > 0) return;
      if (this.final) this.server.close();
      near.end();
      far.destroy();
    });
  }
}
