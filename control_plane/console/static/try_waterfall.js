// Where the time of one answer went: a bar a stage, in the order in which they come.
import { el } from "./dom.js";
import { ms } from "./format.js";

const STAGES = [["load_wait_ms", "Waiting for the load", "wait"], ["route_ms", "Control plane", "way"], ["decode_ms", "Decode", "work"], ["preprocess_ms", "Preprocess", "work"], ["queue_ms", "Queue", "wait"],
  ["inference_ms", "Inference", "model"], ["postprocess_ms", "Postprocess", "work"]];

/** [{name, kind, from, took}] in ms. What no stage has is on the way to the worker and back; what the pool
 * did not see, `measured` being all that this browser waited, is the network's and its own. */
export function stages(timing, measured) {
  const shown = [];
  let at = 0;
  const add = (name, kind, took) => { shown.push({ name, kind, from: at, took }); at += took; };
  for (const [field, name, kind] of STAGES) if (timing[field] > 0) add(name, kind, timing[field]);
  const inside = (timing.total_ms || 0) - at;
  if (inside > 0) add("To the worker and back", "way", inside);
  const outside = measured - at;
  if (outside > 0) add("Network and browser", "way", outside);
  return shown;
}

export function waterfall(timing, measured) {
  const all = stages(timing, measured);
  const end = all.reduce((last, one) => Math.max(last, one.from + one.took), 0) || 1;
  return el("ol", { className: "waterfall" }, all.map(({ name, kind, from, took }) => {
    const bar = el("i", { className: kind });
    bar.style.marginLeft = `${(100 * from) / end}%`;
    bar.style.width = `${(100 * took) / end}%`;
    return el("li", {}, el("span", {}, name), el("span", { className: "track", "aria-hidden": "true" }, bar), el("span", { className: "n" }, ms(took)));
  }));
}
