// One model: its figures, versions, aliases, rollout, why it is where it is, and its batch curve.
import { get, modelPath, aliasPath } from "./api.js";
import { button, load, pin, reasons, unload } from "./actions.js";
import { Chart } from "./chart.js";
import { showProblem } from "./dialogs.js";
import { el, empty, find, write } from "./dom.js";
import { ms, percent, plural, rate } from "./format.js";
import { showAliases } from "./model_aliases.js";
import { startCurve } from "./model_curve.js";
import { showExplained } from "./model_explain.js";
import { showRollout } from "./model_rollout.js";
import { showVersions } from "./model_versions.js";
import { register } from "./register.js";
import { refusal, signedIn } from "./session.js";
import { standings, tierText } from "./standings.js";
import { follow } from "./stream.js";

const REFRESH_MS = 20000, SOON_MS = 1500, KEPT = 900;
const name = new URLSearchParams(location.search).get("name") || "";
document.title = `${name || "Model"} - yolopool`;
find("title").textContent = name || "Model";
if (name) find("try").href = `/console/try?model=${encodeURIComponent(name)}`;

await signedIn();
let model = null, aliases = [], live = {}, due = 0;
const history = [[], [], [], []];
const chart = new Chart(find("chart"), { xLabel: "time", isTime: true, series: [
  { label: "requests", token: "--m0", unit: "/s", scale: "rate" }, { label: "p50", token: "--m2", unit: "ms", scale: "ms" }, { label: "p99", token: "--m1", unit: "ms", scale: "ms" }] });
const tiles = new Map();

const why = name ? follow((now) => { live = now; drawLive(); }) : "";
find("chart-note").textContent = why ? `Not shown to you, since ${why}.` : "From when the page was opened; each point is of the minute before it.";
if (name) {
  startCurve(name);
  await refresh();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
} else {
  find("versions").replaceChildren(empty("No model is named: choose one of ", el("a", { href: "/console/models" }, "all models"), "."));
}

async function refresh() {
  clearTimeout(due);
  try {
    model = await get(modelPath(name));
    aliases = refusal("ListAliases") ? [] : (await get(`/v1/aliases?name_prefix=${encodeURIComponent(name)}`)).aliases.filter((one) => one.model === name);
    showProblem(find("problem"), null);
  } catch (error) {
    showProblem(find("problem"), error);
    if (!model && [400, 404].includes(error.status)) { find("versions").replaceChildren(empty("There is no such model, or it is not yours to see. ", el("a", { href: "/console/models" }, "All models"))); return; }
  }
  if (model) {
    const full = await Promise.all(aliases.map((one) => get(aliasPath(`${name}:${one.name}`)).catch(() => one)));
    drawHead();
    showVersions(find("versions"), model, full, refresh);
    showAliases(find("aliases"), name, full, refresh);
    await showRollout(find("rollout-section"), find("rollout"), name, full, refresh);
    await showExplained(find("explain"), name);
  }
  const isMoving = model?.versions.some((one) => ["VERSION_STATE_UPLOADED", "VERSION_STATE_IMPORTING"].includes(one.state)) || aliases.some((one) => one.switch);
  due = setTimeout(() => { if (!document.hidden) refresh(); }, isMoving ? SOON_MS : REFRESH_MS);
}

function drawHead() {
  const served = model.versions.find((one) => one.version.version === model.default_version) || model.versions[0];
  const after = async (order) => { if (await order) refresh(); };
  const isPinned = served?.pinned || false;
  const found = served ? [
    button("LoadModel", "Load", () => after(load(name, served.wanted_replicas || 1)), { className: "primary" }),
    button("SetResidency", isPinned ? "Unpin" : "Pin", () => after(pin(name, isPinned))),
    button("UnloadModel", "Unload", () => after(unload(name)), { className: "danger" }),
    button("RegisterModel", "New version", () => register(name, refresh))].filter(Boolean) : [];
  const place = find("actions");
  const key = `${isPinned} ${found.length} ${served?.wanted_replicas}`;
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(...found, ...reasons({ Load: "LoadModel", Pin: "SetResidency", Unload: "UnloadModel", "New version": "RegisterModel" }));
}

function tile(label, text) {
  if (!tiles.has(label)) {
    const value = el("div", { className: "value" });
    tiles.set(label, value);
    find("tiles").append(el("div", { className: "tile" }, el("div", { className: "label" }, label), value));
  }
  write(tiles.get(label), text);
}

function drawLive() {
  const [one] = standings([model || { name, versions: [], default_version: 0 }], live.workers.workers, live.statistics.versions);
  tile("Tier", tierText(one.tier));
  tile("Replicas on devices", `${one.hot} of ${one.placed}`);
  tile("Requests", rate(one.rate));
  tile("Failing", rate(one.errors));
  tile("p50", ms(one.p50));
  tile("p99", ms(one.p99));
  tile("Hits", one.isMeasured ? percent(one.hits) : "–");
  const values = [Date.now() / 1000, one.rate, one.p50 || null, one.p99 || null];
  history.forEach((column, at) => { column.push(values[at]); if (column.length > KEPT) column.shift(); });
  chart.show(history);
  find("chart").setAttribute("role", "img");
  find("chart").setAttribute("aria-label", `Now ${rate(one.rate)} requests, half of them within ${ms(one.p50)}, 99 of 100 within ${ms(one.p99)}; ${plural(history[0].length, "point")}`);
}
