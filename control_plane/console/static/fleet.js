// The fleet at a glance: each device's memory, and the busiest models.
import { drain, notOffered } from "./actions.js";
import { showProblem } from "./dialogs.js";
import { badge, el, empty, find, write } from "./dom.js";
import { bytes, ms, percent, plural, rate, versionName, word } from "./format.js";
import { LedgerBar } from "./ledger_bar.js";
import { signedIn } from "./session.js";
import { spark } from "./spark.js";
import { follow } from "./stream.js";
import { Rows } from "./rows.js";

const STATES = { WORKER_STATE_READY: "good", WORKER_STATE_STARTING: "note", WORKER_STATE_DRAINING: "warn" };
const BUSY = 8;
const cards = new Map();
await signedIn();
const refused = notOffered(["DrainWorker"]);
const busy = new Rows(find("busy"), "Busiest models", ["Model", "Rate", "Failing", "p50", "p99", "Queue", "Pass", "Batch", "Hits", "Last minute"], [1, 2, 3, 4, 5, 6, 7, 8]);

find("key").replaceChildren(...[["f-m0", "weights, by model"], ["f-workspace", "workspace"], ["f-other", "context and buffers"], ["f-foreign", "other processes"], ["f-free", "free"]]
  .map(([fill, text]) => el("li", {}, el("span", { className: `swatch ${fill}` }), text)));

const why = follow(show);
if (why) {
  find("devices").replaceChildren(empty("The fleet is not shown to you: ", why, ". ", el("a", { href: "/console/models" }, "The models that you may use"), " are."));
  busy.place.replaceChildren();
}

function show({ fleet, workers, statistics }) {
  const told = statistics.versions;
  const total = (name) => told.reduce((sum, one) => sum + one[name], 0);
  write(find("sum"), [`${rate(total("requests_per_s"))} requests`, `${rate(total("errors_per_s"))} failing`, `${fleet.workers_ready} of ${plural(fleet.workers, "worker")} ready`,
    plural(fleet.models, "model"), `${plural(fleet.replicas_hot, "replica")} on devices`, `${bytes(fleet.used_bytes)} of ${bytes(fleet.budget_bytes)} used`].join(" · "));
  showProblem(find("problem"), fleet.registry_available ? null : { message: "The store does not answer. Models that are loaded go on being served; nothing can be changed until it is back." });
  write(find("foot"), `· ${fleet.control_plane}${fleet.reconciler === fleet.control_plane ? ", which decides" : ""} · ${plural(fleet.requests_total, "request")} since its start`);
  showDevices(workers.workers);
  showBusy(told);
}

function showDevices(workers) {
  const place = find("devices");
  const ids = new Set(workers.map((one) => one.id));
  for (const [id, card] of cards) if (!ids.has(id)) { card.root.remove(); cards.delete(id); }
  if (!workers.length) {
    if (!place.querySelector(".empty")) place.replaceChildren(empty("No worker has joined. Start one with ", el("code", {}, "yolopool worker --control-plane HOST:50051"), ", or a whole pool with ", el("code", {}, "yolopool up"), "."));
    return;
  }
  place.querySelector(".empty")?.remove();
  workers.forEach((worker, position) => {
    let card = cards.get(worker.id);
    if (!card) cards.set(worker.id, (card = cardOf(worker.id)));
    if (place.children[position] !== card.root) place.insertBefore(card.root, place.children[position] || null);
    fill(card, worker);
  });
}

function cardOf(id) {
  const card = { id, bar: new LedgerBar(), state: badge(""), used: el("p", { className: "used" }), line: el("p"), why: el("p") };
  const actions = el("div", { className: "actions" });
  if (!refused.DrainWorker) actions.append(el("button", { type: "button", className: "quiet", "aria-label": `Drain ${id}`, onclick: () => drain(id) }, "Drain"));
  card.root = el("article", { className: "card device", "aria-label": `Worker ${id}` },
    el("div", { className: "device-head" }, el("h3", {}, id), card.state, actions), card.used, card.bar.bar, card.bar.list, card.line, card.why);
  return card;
}

function fill(card, worker) {
  const state = worker.cordoned && worker.state === "WORKER_STATE_READY" ? "moving its models away" : word(worker.state, "WORKER_STATE_");
  write(card.state, state);
  card.state.className = `badge ${worker.cordoned ? "warn" : STATES[worker.state] || "bad"}`;
  const { free, total } = card.bar.show(worker);
  const device = [worker.device, worker.device_name].filter(Boolean).join(" · ");
  write(card.used, `${device} · ${bytes(total - free)} of ${bytes(total)} used, ${percent(1 - free / total)}`);
  const load = worker.load || {};
  const hot = worker.replicas.filter((one) => one.state === "REPLICA_STATE_HOT").length;
  write(card.line, `${plural(worker.replicas.length, "model")}, ${hot} on the device · ${load.outstanding || 0} of ${load.queue_capacity || 0} requests open · next starts in ${load.estimated_wait_ms ? ms(load.estimated_wait_ms) : "0 ms"}`);
  const exit = worker.last_exit;
  write(card.why, exit ? `Its process ended (${exit.ended}), ${plural(exit.in_a_row, "time")} in a row: ${exit.last_output.trim().split("\n").pop().slice(0, 200)}` : worker.replaces_because || "");
}

function showBusy(told) {
  const shown = told.filter((one) => one.requests_per_s > 0).slice(0, BUSY);
  if (!shown.length) { busy.none("No request in the last minute."); return; }
  busy.show(shown.map((one) => {
    const name = versionName(one.version);
    return { key: name, cells: [el("a", { className: "name", href: `/console/model?name=${encodeURIComponent(one.version.model)}` }, name), rate(one.requests_per_s),
      one.errors_per_s ? badge(rate(one.errors_per_s), "bad") : "0/s", ms(one.p50_ms), ms(one.p99_ms), ms(one.queue_ms), ms(one.inference_ms), one.batch_size ? one.batch_size.toFixed(1) : "–", percent(one.hit_ratio),
      spark(one.steps, `requests a second, ${one.steps.map((step) => Math.round(step)).join(", ")}`)] };
  }));
}

