// All models: where they are, what is asked of them, and how long it takes. Filter, sort, act.
import { reasons } from "./actions.js";
import { get } from "./api.js";
import { showProblem } from "./dialogs.js";
import { badge, el, find, write } from "./dom.js";
import { bytes, ms, percent, plural, rate } from "./format.js";
import { catchDrops, register } from "./register.js";
import { refusal, signedIn } from "./session.js";
import { spark } from "./spark.js";
import { sorted, standings, tierText } from "./standings.js";
import { follow } from "./stream.js";
import { SortableRows } from "./sortable_rows.js";

const REFRESH_MS = 60000, SOON_MS = 1500;
const COLUMNS = [["name", "Model"], ["tier", "Tier"], ["hot", "Replicas", "n"], ["rate", "Rate", "n"], ["errors", "Failing", "n"], ["p50", "p50", "n"], ["p99", "p99", "n"],
  ["hits", "Hits", "n"], ["bytes", "Weights", "n"], ["steps", "Last minute"]];
const TIER_KINDS = { hot: "good", warm: "note", loading: "note", failed: "bad", waiting: "warn" };

await signedIn();
let models = [];
let live = {};
let due = 0;
const wanted = new URLSearchParams(location.search);
find("name").value = wanted.get("name") || "";
const table = new SortableRows(find("models"), "Models", COLUMNS, "rate", draw);

async function fetchModels() {
  clearTimeout(due);
  try {
    models = (await get("/v1/models")).models;
    showProblem(find("problem"), null);
  } catch (error) { showProblem(find("problem"), error); }
  draw();
  const isMoving = models.some((model) => model.versions.some((one) => ["VERSION_STATE_UPLOADED", "VERSION_STATE_IMPORTING"].includes(one.state)));
  due = setTimeout(() => (document.hidden ? fetchModels.late = true : fetchModels()), isMoving ? SOON_MS : REFRESH_MS);
}

const why = follow((now) => {
  const isNew = live.fleet && (live.fleet.models !== now.fleet.models || live.fleet.versions !== now.fleet.versions);
  live = { ...now };
  if (isNew) fetchModels(); else draw();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) fetchModels(); });
find("filters").addEventListener("input", draw);
find("filters").addEventListener("submit", (event) => event.preventDefault());
if (!refusal("RegisterModel")) {
  find("register").hidden = false;
  find("register").addEventListener("click", () => register("", fetchModels));
  catchDrops(document.body, (file) => { if (!document.querySelector("dialog")) register("", fetchModels, file); });
}
find("note").replaceChildren(...reasons({ "Register a model": "RegisterModel" }),
  why ? el("span", {}, `Rates and times are not shown to you, since ${why}.`) : "Rates and times are of the last minute, of the control plane that answers. Hits: requests for which a worker had the model when they came.");
await fetchModels();

function draw() {
  const all = standings(models, live.workers?.workers, live.statistics?.versions);
  const part = find("name").value.trim().toLowerCase();
  const shown = find("shown").value;
  const kept = all.filter((one) => one.name.toLowerCase().includes(part) && (shown === "all" || (shown === "loaded" && one.hot > 0) || (shown === "busy" && one.rate > 0) || (shown === "wrong" && one.trouble)));
  write(find("sum"), `${plural(all.length, "model")}, ${all.filter((one) => one.hot > 0).length} on a device`);
  write(find("count"), kept.length === all.length ? "" : `${kept.length} of ${all.length} shown`);
  const none = all.length ? "No model fits the filter." : refusal("RegisterModel") ? "There is no model that you may see." : "There is no model yet: drop a file here, or run yolopool models register NAME FILE.";
  table.show(sorted(kept, table.by, table.isUp).map(rowOf), none);
}

function rowOf(one) {
  const link = el("a", { className: "name", href: `/console/model?name=${encodeURIComponent(one.name)}` }, one.name);
  const name = el("span", {}, link, one.trouble ? el("span", {}, " ", badge(one.trouble, "bad")) : "");
  const known = one.isMeasured;
  return { key: one.name, cells: [name, badge(tierText(one.tier), TIER_KINDS[one.tier] || ""), `${one.hot}/${one.placed}`, known ? rate(one.rate) : "–", known && one.errors >= 0.05 ? badge(rate(one.errors), "bad") : known ? "0/s" : "–",
    ms(one.p50), ms(one.p99), known ? percent(one.hits) : "–", one.bytes ? bytes(one.bytes) : "–", spark(one.steps, known ? `${rate(one.rate)} requests in the last minute` : "no request in the last minute")] };
}
