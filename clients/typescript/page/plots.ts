/** Small drawings of what a meter has measured. */

import { h, svg } from "./dom.js";
import type { Column, Meter } from "./meter.js";

const WIDE = 240;
const HIGH = 64;
const RUNS = 12; // whose times to the first token are shown

/** Three drawings, and what they say in words. */
export class Plots {
  readonly element: HTMLElement;
  private readonly first = new Plot("Time to first token");
  private readonly gaps = new Plot("Gap between tokens");
  private readonly rate = new Plot("Tokens per second");
  private readonly firsts: number[] = [];
  private counted: Meter | undefined;

  constructor() {
    const plots = [this.first, this.gaps, this.rate].map(({ element }) => element);
    this.element = h("div", { class: "plots", role: "group", "aria-label": "What was measured in this page" }, ...plots);
  }

  /** Show what has been measured so far. */
  draw(meter: Meter): void {
    this.note(meter);
    const ms = (value: number | undefined): string => (value === undefined ? "–" : `${round(value)} ms`);
    const shown = this.firsts.length > 1 ? `, the last ${this.firsts.length} calls` : "";
    this.first.bars(this.firsts, ms(meter.first), `${ms(meter.first)}${shown}`);
    const [mean, most] = [ms(meter.mean), ms(meter.items > 1 ? meter.longest : undefined)];
    const late = ms(meter.quantile(0.95));
    const heard = heardIn(meter.columns);
    this.gaps.lines(
      heard.map(({ gapMax }) => gapMax),
      heard.map(({ count, gapSum }) => gapSum / count),
      mean,
      `mean ${mean}, 95 of 100 within ${late}, longest ${most}`,
    );
    const rates = meter.columns.map(({ count }) => (count * 1000) / meter.width);
    const rate = meter.rate === undefined ? "–" : round(meter.rate);
    // The last column is not over yet, so it would seem slow.
    this.rate.lines(rates.length > 1 ? rates.slice(0, -1) : rates, [], `${rate} /s`, `${rate} per second, ${meter.items} in all`);
  }

  private note(meter: Meter): void {
    if (meter.first === undefined || meter === this.counted) return;
    this.counted = meter;
    this.firsts.push(meter.first);
    if (this.firsts.length > RUNS) this.firsts.shift();
  }
}

class Plot {
  readonly element: HTMLElement;
  private readonly drawing: SVGElement;
  private readonly area = svg("path", { class: "area" });
  private readonly line = svg("path", { class: "line" });
  private readonly value = h("span", { class: "value" }, "–");
  private readonly top = h("span", { class: "top" });

  constructor(private readonly name: string) {
    const box = { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": name };
    this.drawing = svg("svg", box);
    this.drawing.append(this.area, this.line);
    const caption = h("figcaption", {}, h("span", {}, name), this.value);
    this.element = h("figure", { class: "plot" }, caption, this.top);
    this.element.append(this.drawing);
  }

  /** Draw a bar for each value. */
  bars(values: readonly number[], value: string, words: string): void {
    const top = Math.max(...values, Number.MIN_VALUE);
    const step = WIDE / RUNS;
    const bars = values.map((each, at) => {
      const high = Math.max(1, (each / top) * (HIGH - 4));
      return `M${at * step + 2} ${HIGH}v${-high}h${step - 4}v${high}z`;
    });
    this.say(bars.join(""), "", values.length > 0 ? `${round(top)} ms` : "", value, words);
  }

  /** Draw an area below some values, and a line through others of the same scale. */
  lines(area: readonly number[], line: readonly number[], value: string, words: string): void {
    const top = Math.max(...area, Number.MIN_VALUE);
    const step = WIDE / Math.max(1, area.length - 1);
    const points = (values: readonly number[]): string =>
      values.map((each, at) => `${at === 0 ? "M" : "L"}${(at * step).toFixed(1)} ${(HIGH - (each / top) * (HIGH - 4)).toFixed(1)}`).join("");
    const below = area.length < 2 ? "" : `${points(area)}L${WIDE} ${HIGH}L0 ${HIGH}z`;
    this.say(below, line.length < 2 ? "" : points(line), area.length > 1 ? round(top) : "", value, words);
  }

  private say(area: string, line: string, top: string, value: string, words: string): void {
    this.area.setAttribute("d", area);
    this.line.setAttribute("d", line);
    this.top.textContent = top;
    this.value.textContent = value;
    this.drawing.setAttribute("aria-label", `${this.name}: ${words}`);
  }
}

/** Return the columns, with the one before in the place of one in which nothing came: there was no gap to tell of. */
function heardIn(columns: readonly Column[]): Column[] {
  let last = columns[0];
  return columns.flatMap((column) => {
    if (column.count > 0) last = column;
    return last === undefined ? [] : [last];
  });
}

/** Return a number in as few digits as tell something. */
export function round(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
