import { h, svg } from "./dom.js";
const WIDE = 240;
const HIGH = 64;
const RUNS = 12;
export class Plots {
    element;
    first = new Plot("Time to first token");
    gaps = new Plot("Gap between tokens");
    rate = new Plot("Tokens per second");
    firsts = [];
    counted;
    constructor() {
        const plots = [this.first, this.gaps, this.rate].map(({ element }) => element);
        this.element = h("div", { class: "plots", role: "group", "aria-label": "What was measured in this page" }, ...plots);
    }
    draw(meter) {
        this.note(meter);
        const ms = (value) => (value === undefined ? "–" : `${round(value)} ms`);
        const shown = this.firsts.length > 1 ? `, the last ${this.firsts.length} calls` : "";
        this.first.bars(this.firsts, ms(meter.first), `${ms(meter.first)}${shown}`);
        const [mean, most] = [ms(meter.mean), ms(meter.items > 1 ? meter.longest : undefined)];
        const late = ms(meter.quantile(0.95));
        const heard = heardIn(meter.columns);
        this.gaps.lines(heard.map(({ gapMax }) => gapMax), heard.map(({ count, gapSum }) => gapSum / count), mean, `mean ${mean}, 95 of 100 within ${late}, longest ${most}`);
        const rates = meter.columns.map(({ count }) => (count * 1000) / meter.width);
        const rate = meter.rate === undefined ? "–" : round(meter.rate);
        this.rate.lines(rates.length > 1 ? rates.slice(0, -1) : rates, [], `${rate} /s`, `${rate} per second, ${meter.items} in all`);
    }
    note(meter) {
        if (meter.first === undefined || meter === this.counted)
            return;
        this.counted = meter;
        this.firsts.push(meter.first);
        if (this.firsts.length > RUNS)
            this.firsts.shift();
    }
}
class Plot {
    name;
    element;
    drawing;
    area = svg("path", { class: "area" });
    line = svg("path", { class: "line" });
    value = h("span", { class: "value" }, "–");
    top = h("span", { class: "top" });
    constructor(name) {
        this.name = name;
        const box = { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": name };
        this.drawing = svg("svg", box);
        this.drawing.append(this.area, this.line);
        const caption = h("figcaption", {}, h("span", {}, name), this.value);
        this.element = h("figure", { class: "plot" }, caption, this.top);
        this.element.append(this.drawing);
    }
    bars(values, value, words) {
        const top = Math.max(...values, Number.MIN_VALUE);
        const step = WIDE / RUNS;
        const bars = values.map((each, at) => {
            const high = Math.max(1, (each / top) * (HIGH - 4));
            return `M${at * step + 2} ${HIGH}v${-high}h${step - 4}v${high}z`;
        });
        this.say(bars.join(""), "", values.length > 0 ? `${round(top)} ms` : "", value, words);
    }
    lines(area, line, value, words) {
        const top = Math.max(...area, Number.MIN_VALUE);
        const step = WIDE / Math.max(1, area.length - 1);
        const points = (values) => values.map((each, at) => `${at === 0 ? "M" : "L"}${(at * step).toFixed(1)} ${(HIGH - (each / top) * (HIGH - 4)).toFixed(1)}`).join("");
        const below = area.length < 2 ? "" : `${points(area)}L${WIDE} ${HIGH}L0 ${HIGH}z`;
        this.say(below, line.length < 2 ? "" : points(line), area.length > 1 ? round(top) : "", value, words);
    }
    say(area, line, top, value, words) {
        this.area.setAttribute("d", area);
        this.line.setAttribute("d", line);
        this.top.textContent = top;
        this.value.textContent = value;
        this.drawing.setAttribute("aria-label", `${this.name}: ${words}`);
    }
}
function heardIn(columns) {
    let last = columns[0];
    return columns.flatMap((column) => {
        if (column.count > 0)
            last = column;
        return last === undefined ? [] : [last];
    });
}
export function round(value) {
    if (value >= 100)
        return value.toFixed(0);
    return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
