// The aliases of a model: what each means, what it waits for, and what it meant before.
import { button, rollBack } from "./actions.js";
import { badge, el, empty } from "./dom.js";
import { ago, word } from "./format.js";
import { refusal } from "./session.js";

const MAX_CHANGES = 5;

export function showAliases(place, model, aliases, refresh) {
  const why = refusal("ListAliases");
  if (why) { place.replaceChildren(empty(`Not shown to you: ${why}.`)); return; }
  if (!aliases.length) { place.replaceChildren(empty("It has none. Promote a version to make one: callers then ask for ", el("code", {}, `${model}:stable`), ", and you decide which version that is.")); return; }
  const made = el("div", { className: "stack" }, aliases.map((one) => card(model, one, refresh)));
  if (!place.firstElementChild?.isEqualNode(made)) place.replaceChildren(made);
}

function card(model, alias, refresh) {
  const reference = `${model}:${alias.name}`;
  const before = targets(alias.previous);
  const after = async () => { if (await rollBack(reference, alias.revision, before)) refresh(); };
  const back = alias.previous.length ? button("RollbackAlias", "Roll back", after, { "aria-label": `Roll ${reference} back to ${before}`, className: "danger" }) : null;
  const changes = (alias.history || []).slice(-MAX_CHANGES).reverse();
  return el("article", { className: "card", "aria-label": reference },
    el("div", { className: "line" }, el("h3", {}, `:${alias.name}`), badge(alias.family ? "a family" : targets(alias.targets), "note"),
      alias.switch ? badge(`moving to ${targets(alias.switch.targets)}`, "warn") : null, el("div", { className: "actions" }, back)),
    alias.switch ? el("p", { className: "muted" }, `It waits for ${alias.switch.waits_for || "its targets to be loaded"}.`) : null,
    changes.length ? el("details", {}, el("summary", {}, "History"), el("ol", {}, changes.map((one) => el("li", {},
      `${ago(one.unix_s)}: ${word(one.kind, "ALIAS_CHANGE_KIND_")} to ${targets(one.after)} by ${one.by}${one.why ? ` (${one.why})` : ""}`)))) : null);
}

function targets(all) {
  return all.map((one) => (one.weight === 1000 ? `version ${one.version}` : `version ${one.version} for ${one.weight / 10} %`)).join(", ") || "nothing";
}
