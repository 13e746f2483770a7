/** Work that is put off to when a page is painted next, or to when it has had time for its user. */

const WORK_MS = 8; // work in a row; past 50 ms a user would feel it

/** Runs a piece of work once before the next painting, however often that is asked for. */
export class Painter {
  private due = false;

  constructor(private readonly paint: () => void) {}

  /** What is shown has changed. */
  touch(): void {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => this.flush());
  }

  /** Show it now, if there is anything. */
  flush(): void {
    if (!this.due) return;
    this.due = false;
    this.paint();
  }
}

/** Lets the page do other things in the midst of long work. */
export class Breath {
  private readonly channel = new MessageChannel(); // timers wait for 4 ms, and in a tab that is hidden for 1 s
  private since = performance.now();

  /** Whether it is time to take one. */
  get due(): boolean {
    return performance.now() - this.since > WORK_MS;
  }

  /** Go on when the page has had its turn. */
  async take(): Promise<void> {
    await new Promise((resolve) => {
      this.channel.port1.onmessage = resolve;
      this.channel.port2.postMessage(null);
    });
    this.since = performance.now();
  }

  /** No more are taken. */
  close(): void {
    this.channel.port1.close();
  }
}
