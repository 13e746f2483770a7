const COLUMNS = 60;
const FIRST_WIDTH_MS = 50;
const FINEST_MS = 0.01;
const GROWTH = 1.1;
const CLASSES = 200;
export class Meter {
    called;
    first;
    items = 0;
    width = FIRST_WIDTH_MS;
    columns = [];
    gapSum = 0;
    gapMax = 0;
    classes = new Uint32Array(CLASSES);
    began;
    last;
    constructor(called) {
        this.called = called;
    }
    see(now) {
        this.items += 1;
        const last = this.last;
        this.last = now;
        if (last === undefined) {
            this.began = now;
            this.first = now - this.called;
            this.column(now).count += 1;
            return;
        }
        const gap = now - last;
        const column = this.column(now);
        column.count += 1;
        column.gapSum += gap;
        column.gapMax = Math.max(column.gapMax, gap);
        this.gapSum += gap;
        this.gapMax = Math.max(this.gapMax, gap);
        const grade = gap <= FINEST_MS ? 0 : Math.ceil(Math.log(gap / FINEST_MS) / Math.log(GROWTH));
        const at = Math.min(grade, CLASSES - 1);
        this.classes[at] = (this.classes[at] ?? 0) + 1;
    }
    get rate() {
        if (this.began === undefined || this.last === undefined || this.last === this.began)
            return undefined;
        return ((this.items - 1) * 1000) / (this.last - this.began);
    }
    get mean() {
        return this.items < 2 ? undefined : this.gapSum / (this.items - 1);
    }
    get longest() {
        return this.gapMax;
    }
    quantile(share) {
        let left = share * (this.items - 1);
        if (this.items < 2)
            return undefined;
        for (let at = 0; at < CLASSES; at += 1) {
            left -= this.classes[at] ?? 0;
            if (left <= 0)
                return at === 0 ? 0 : Math.min(this.gapMax, FINEST_MS * GROWTH ** at);
        }
        return this.gapMax;
    }
    column(now) {
        let at = Math.floor((now - (this.began ?? now)) / this.width);
        while (at >= COLUMNS) {
            this.halve();
            at = Math.floor((now - (this.began ?? now)) / this.width);
        }
        while (this.columns.length <= at)
            this.columns.push({ count: 0, gapSum: 0, gapMax: 0 });
        return this.columns[at];
    }
    halve() {
        const old = this.columns.splice(0);
        for (let at = 0; at < old.length; at += 2) {
            const a = old[at];
            const b = old[at + 1] ?? { count: 0, gapSum: 0, gapMax: 0 };
            const gapMax = Math.max(a.gapMax, b.gapMax);
            this.columns.push({ count: a.count + b.count, gapSum: a.gapSum + b.gapSum, gapMax });
        }
        this.width *= 2;
    }
}
