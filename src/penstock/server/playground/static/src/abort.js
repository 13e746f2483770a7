import { sleep } from "./backoff.js";
const PATIENCE_MS = 10_000;
export class Abort {
    signal;
    cancel;
    dropping = new AbortController();
    constructor(signal, cancel) {
        this.signal = signal;
        this.cancel = cancel;
        signal?.addEventListener("abort", this.act);
        if (signal?.aborted === true)
            this.drop();
    }
    get dropped() {
        return this.dropping.signal;
    }
    get asked() {
        return this.signal?.aborted === true;
    }
    get reason() {
        return this.signal?.reason;
    }
    drop() {
        this.dropping.abort();
    }
    done() {
        this.signal?.removeEventListener("abort", this.act);
        this.drop();
    }
    act = () => {
        void this.cancel().then(() => sleep(PATIENCE_MS, this.dropped).then(() => this.drop()), () => this.drop());
    };
}
