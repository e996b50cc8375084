// What a pass costs by its batch, measured on request.
import { lines, modelPath } from "./api.js";
import { button, reasons } from "./actions.js";
import { Chart } from "./chart.js";
import { ask, tell } from "./dialogs.js";
import { el, empty, find } from "./dom.js";
import { bytes, ms, percent } from "./format.js";
import { Rows } from "./rows.js";

export function startCurve(name) {
  const place = find("curve");
  const made = button("BenchModel", "Measure", () => measure(name, made));
  find("curve-actions").replaceChildren(...(made ? [made] : []), ...reasons({ Measure: "BenchModel" }));
  find("curve-table").replaceChildren(empty("Not measured since the page was opened. A measurement takes half a minute; the worker goes on serving beside it."));
  place.replaceChildren();
}

async function measure(name, made) {
  const isSure = await ask({ title: `Measure the batch curve of ${name}?`, action: "Measure", run: async () => true,
    text: "One worker runs passes of 1, 2, 4, 8 and 16 images for it, one by one behind the batches of others: requests wait for one pass more at most." });
  if (!isSure) return;
  made.disabled = true;
  const points = new Map();
  const table = find("curve-table");
  const rows = new Rows(table, `Passes of ${name} by batch`, ["Batch", "p50", "p99", "Images", "Forward", "Workspace", "Worker busy", "Note"], [1, 2, 3, 4, 5, 6]);
  const chart = new Chart(find("curve"), { xLabel: "images a pass", series: [
    { label: "a pass, p50", token: "--m0", unit: "ms", scale: "ms" }, { label: "a pass, p99", token: "--m1", unit: "ms", scale: "ms" }, { label: "images", token: "--m2", unit: "/s", scale: "rate" }] });
  rows.none("Waiting for the first passes.");
  try {
    for await (const { point } of lines("POST", `${modelPath(name)}/bench`, { sweep: {} })) {
      points.set(point.batch, point);
      const all = [...points.values()].sort((a, b) => a.batch - b.batch);
      rows.show(all.map((one) => ({ key: one.batch, cells: [String(one.batch), ms(one.p50_ms), ms(one.p99_ms), one.images_per_s ? `${one.images_per_s.toFixed(1)}/s` : "–", ms(one.forward_ms), bytes(one.workspace_bytes), percent(one.busy), one.message || ""] })));
      const run = all.filter((one) => one.p50_ms > 0);
      if (run.length) chart.show([run.map((one) => one.batch), run.map((one) => one.p50_ms), run.map((one) => one.p99_ms), run.map((one) => one.images_per_s)]);
    }
    tell(`The batch curve of ${name} is measured.`);
  } catch (error) {
    tell(error.message, true);
    if (!points.size) table.replaceChildren(empty(error.message));
  }
  made.disabled = false;
}
