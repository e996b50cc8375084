// A line of a few values, as high as its highest.
import { svg } from "./dom.js";

const WIDTH = 96, HEIGHT = 22, PAD = 2;

/** The picture for values, oldest first; `label` says the same in words. */
export function spark(values, label) {
  const most = Math.max(...values, 0);
  const x = (place) => (values.length < 2 ? 0 : (place * WIDTH) / (values.length - 1));
  const y = (value) => HEIGHT - PAD - (most ? (value / most) * (HEIGHT - 2 * PAD) : 0);
  const points = values.map((value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`).join("L");
  const paths = values.length ? [svg("path", { d: `M${points}L${WIDTH},${HEIGHT}L0,${HEIGHT}Z`, class: "area" }), svg("path", { d: `M${points}` })] : [];
  return svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...paths);
}
