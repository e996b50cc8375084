// Lines over x, by uPlot (MIT), in the colours of the page.
import uPlot from "./vendor/uplot/uplot.js";

// What an axis of time shows at least.
const SPAN_S = 60;
const loaded = new Set();

function addSheet() {
  const href = "/console/static/vendor/uplot/uplot.css";
  if (loaded.has(href)) return;
  loaded.add(href);
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** `series`: {label, token, unit, scale}; the first scale is on the left. `isTime`: x is Unix seconds. */
export class Chart {
  constructor(place, { series, xLabel, isTime = false, height = 200 }) {
    addSheet();
    this.place = place;
    this.given = { series, xLabel, isTime, height };
    this.data = null;
    new ResizeObserver(() => this.plot?.setSize({ width: this.width(), height })).observe(place);
    const again = () => { this.plot?.destroy(); this.plot = null; if (this.data) this.show(this.data); };
    document.addEventListener("themed", again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }

  width() { return Math.max(200, this.place.clientWidth - 24); }

  /** `data`: x, then the values of each series; null where there is none. */
  show(data) {
    this.data = data;
    if (this.plot) this.plot.setData(data); else this.plot = new uPlot(this.options(), data, this.place);
  }

  options() {
    const { series, xLabel, isTime, height } = this.given;
    const scales = [...new Set(series.map((one) => one.scale))];
    const look = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: `12px ${colour("--font")}` };
    const axis = (scale, at) => ({ ...look, scale, side: at ? 1 : 3, size: 76, grid: at ? { show: false } : look.grid, values: (_, ticks) => ticks.map((tick) => `${tick} ${series.find((one) => one.scale === scale).unit}`) });
    return {
      width: this.width(), height, cursor: { drag: { x: false, y: false } },
      scales: { x: isTime ? { time: true, range: (_, low, high) => [Math.min(low, high - SPAN_S), high] } : { time: false }, ...Object.fromEntries(scales.map((scale) => [scale, { range: (_, low, high) => [0, high ? high * 1.1 : 1] }])) },
      axes: [{ ...look, label: isTime ? undefined : xLabel, labelFont: look.font, labelSize: 18 }, ...scales.map(axis)],
      series: [{ label: xLabel }, ...series.map((one) => ({ label: one.label, scale: one.scale, stroke: colour(one.token), width: 2, points: { show: !isTime }, value: (_, value) => (value === null || value === undefined ? "–" : `${Math.round(value * 10) / 10} ${one.unit}`) }))],
    };
  }
}
