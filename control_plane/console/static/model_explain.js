// Why a model is where it is, worker by worker.
import { get, modelPath } from "./api.js";
import { badge, el, empty, facts } from "./dom.js";
import { bytes, ms, word } from "./format.js";
import { Rows } from "./rows.js";
import { refusal } from "./session.js";

let rows = null, summary = null;

export async function showExplained(place, name) {
  const why = refusal("ExplainModel");
  if (why) { place.replaceChildren(empty(`Not shown to you: ${why}.`)); return; }
  let told;
  try { told = await get(`${modelPath(name)}/explain`); } catch (error) { place.replaceChildren(empty(error.message)); rows = null; return; }
  if (!rows) {
    const table = el("div");
    summary = el("div");
    rows = new Rows(table, `Workers, and what each is to ${name}`, ["Worker", "Here", "Could be", "Why", "Takes", "Free", "Load"], [4, 5, 6]);
    place.replaceChildren(summary, table);
  }
  const said = el("div", {}, told.waiting_reason ? el("div", { className: "notice" }, `Wanted and not there: ${told.waiting_reason}`) : null,
    told.wants.length || told.aliases.length ? el("ul", {}, [...told.wants, ...told.aliases].map((text) => el("li", {}, text))) : el("p", { className: "muted" }, "Nobody wants it loaded now."),
    facts([["requests expected", `${told.rate.toFixed(2)}/s`], ["worth", told.value_per_gib ? `${told.value_per_gib.toFixed(2)} s of waiting saved a second, per GiB` : ""]]));
  if (!summary.firstElementChild?.isEqualNode(said)) summary.replaceChildren(said);
  if (!told.workers.length) { rows.none("No worker has joined: it can be nowhere."); return; }
  rows.show(told.workers.map((one) => ({ key: one.worker, cells: [el("span", {}, one.worker, el("span", { className: "small muted" }, ` ${one.device}`)),
    one.state === "REPLICA_STATE_UNSPECIFIED" ? "no" : badge(word(one.state, "REPLICA_STATE_"), one.state === "REPLICA_STATE_HOT" ? "good" : "note"),
    one.feasible ? badge("yes", "good") : badge("no"), one.why || (one.feasible ? "there is room" : word(one.reason)), bytes(one.weights_bytes), bytes(one.free_bytes), ms(one.load_ms)] })));
}
