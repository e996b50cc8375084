// The versions of a model: how each came, what it is, where it is.
import { button, load, promote, unload } from "./actions.js";
import { badge, el, empty, facts } from "./dom.js";
import { ago, bytes, count, percent, plural, word } from "./format.js";

const KINDS = { VERSION_STATE_READY: "good", VERSION_STATE_FAILED: "bad", VERSION_STATE_IMPORTING: "note", VERSION_STATE_UPLOADED: "note" };
const MAX_SHOWN = 12;

export function showVersions(place, model, aliases, refresh) {
  if (!model.versions.length) { place.replaceChildren(empty("It has no version.")); return; }
  const shown = model.versions.slice(0, MAX_SHOWN).map((one) => card(model, one, aliases, refresh));
  const rest = model.versions.length - shown.length;
  const made = el("div", { className: "stack" }, shown, rest > 0 ? el("p", { className: "muted" }, `and ${plural(rest, "older version")}`) : null);
  // What has the focus is not taken away by a look that found nothing new.
  if (place.firstElementChild?.isEqualNode(made)) return;
  place.replaceChildren(made);
}

function card(model, one, aliases, refresh) {
  const number = one.version.version, reference = `${model.name}@${number}`;
  const names = aliases.filter((alias) => alias.targets.some((target) => target.version === number));
  const after = async (order) => { if (await order) refresh(); };
  const isReady = one.state === "VERSION_STATE_READY";
  const actions = isReady ? [
    button("LoadModel", "Load", () => after(load(reference, one.wanted_replicas || 1)), { "aria-label": `Load version ${number}` }),
    one.wanted_replicas ? button("UnloadModel", "Unload", () => after(unload(reference)), { "aria-label": `Unload version ${number}` }) : null,
    button("PromoteModel", "Promote", () => after(promote(model.name, number, aliases.map((alias) => alias.name))), { "aria-label": `Promote version ${number}` })] : [];
  const isMoving = ["VERSION_STATE_IMPORTING", "VERSION_STATE_UPLOADED"].includes(one.state);
  return el("article", { className: "card", "aria-label": `Version ${number}` },
    el("div", { className: "line" }, el("h3", {}, `Version ${number}`), badge(word(one.state, "VERSION_STATE_"), KINDS[one.state]),
      number === model.default_version ? badge("default", "note") : null, one.pinned ? badge("pinned", "warn") : null,
      ...names.map((alias) => badge(`:${alias.name}${share(alias, number)}`, "note")),
      el("div", { className: "actions" }, actions.filter(Boolean))),
    isMoving ? el("p", {}, el("progress", { max: 1, value: one.progress || 0, "aria-label": "Import" }), ` ${one.step || "waits for an importer"}, ${percent(one.progress)}`) : null,
    one.state === "VERSION_STATE_FAILED" ? el("div", { className: "notice bad" }, `${one.reason}: ${one.message}`) : null,
    one.waiting_reason ? el("div", { className: "notice" }, `Not placed: ${one.waiting_reason}`) : null,
    ...one.warnings.map((text) => el("div", { className: "notice" }, text)),
    facts([["file", one.source_name || one.uri], ["registered", one.created_unix_s ? ago(one.created_unix_s) : ""], ["by", one.registered?.by], ["task", one.task],
      ["classes", one.class_names.length ? `${one.class_names.slice(0, 6).join(", ")}${one.class_names.length > 6 ? ` and ${one.class_names.length - 6} more` : ""}` : ""],
      ["architecture", one.architecture], ["weights", one.weights_bytes ? bytes(one.weights_bytes) : ""], ["parameters", one.parameters ? count(one.parameters) : ""],
      ["wanted", one.wanted_replicas ? plural(one.wanted_replicas, "replica") : ""], ["signed by", one.signer]]),
    one.replicas.length ? el("p", { className: "muted" }, "On ", one.replicas.map((at) => `${at.worker} (${word(at.replica.state, "REPLICA_STATE_")})`).join(", ")) : null);
}

function share(alias, number) {
  const target = alias.targets.find((one) => one.version === number);
  return target.weight === 1000 ? "" : ` ${target.weight / 10} %`;
}
