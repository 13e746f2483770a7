const WORK_MS = 8;
export class Painter {
    paint;
    due = false;
    constructor(paint) {
        this.paint = paint;
    }
    touch() {
        if (this.due)
            return;
        this.due = true;
        requestAnimationFrame(() => this.flush());
    }
    flush() {
        if (!this.due)
            return;
        this.due = false;
        this.paint();
    }
}
export class Breath {
    channel = new MessageChannel();
    since = performance.now();
    get due() {
        return performance.now() - this.since > WORK_MS;
    }
    async take() {
        await new Promise((resolve) => {
            this.channel.port1.onmessage = resolve;
            this.channel.port2.postMessage(null);
        });
        this.since = performance.now();
    }
    close() {
        this.channel.port1.close();
    }
}
