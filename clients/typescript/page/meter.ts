/** How fast items come, in so little room that a stream may last for hours. */

const COLUMNS = 60;
const FIRST_WIDTH_MS = 50;
const FINEST_MS = 0.01;
const GROWTH = 1.1; // from one class of gaps to the next
const CLASSES = 200; // the last one begins past a day

/** What came within one stretch of time. */
export interface Column {
  count: number;
  gapSum: number;
  gapMax: number;
}

/** Measures one call; times are in milliseconds, of one clock that does not go back. */
export class Meter {
  /** From the call to its first item. */
  first: number | undefined;
  items = 0;
  /** How long a column is. */
  width = FIRST_WIDTH_MS;
  readonly columns: Column[] = [];
  private gapSum = 0;
  private gapMax = 0;
  private readonly classes = new Uint32Array(CLASSES);
  private began: number | undefined;
  private last: number | undefined;

  constructor(private readonly called: number) {}

  /** An item came. */
  see(now: number): void {
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

  /** Items per second, from the first to the last; undefined before there are two. */
  get rate(): number | undefined {
    if (this.began === undefined || this.last === undefined || this.last === this.began) return undefined;
    return ((this.items - 1) * 1000) / (this.last - this.began);
  }

  /** The mean gap. */
  get mean(): number | undefined {
    return this.items < 2 ? undefined : this.gapSum / (this.items - 1);
  }

  /** The longest gap. */
  get longest(): number {
    return this.gapMax;
  }

  /** The gap that this share of all gaps does not pass, to 10 %. */
  quantile(share: number): number | undefined {
    let left = share * (this.items - 1);
    if (this.items < 2) return undefined;
    for (let at = 0; at < CLASSES; at += 1) {
      left -= this.classes[at] ?? 0;
      if (left <= 0) return at === 0 ? 0 : Math.min(this.gapMax, FINEST_MS * GROWTH ** at);
    }
    return this.gapMax;
  }

  private column(now: number): Column {
    let at = Math.floor((now - (this.began ?? now)) / this.width);
    while (at >= COLUMNS) {
      this.halve();
      at = Math.floor((now - (this.began ?? now)) / this.width);
    }
    while (this.columns.length <= at) this.columns.push({ count: 0, gapSum: 0, gapMax: 0 });
    return this.columns[at] as Column;
  }

  /** Make each column as long as two. */
  private halve(): void {
    const old = this.columns.splice(0);
    for (let at = 0; at < old.length; at += 2) {
      const a = old[at] as Column;
      const b = old[at + 1] ?? { count: 0, gapSum: 0, gapMax: 0 };
      const gapMax = Math.max(a.gapMax, b.gapMax);
      this.columns.push({ count: a.count + b.count, gapSum: a.gapSum + b.gapSum, gapMax });
    }
    this.width *= 2;
  }
}
