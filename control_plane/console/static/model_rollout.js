// A rollout: how far it is, what was measured against what is allowed, and pictures of what differs.
import { abort, button } from "./actions.js";
import { aliasPath, get } from "./api.js";
import { badge, el, facts } from "./dom.js";
import { count, ago, word } from "./format.js";
import { picture } from "./picture.js";
import { Rows } from "./rows.js";
import { refusal } from "./session.js";

const FINDINGS = { ROLLOUT_FINDING_WITHIN: ["within", "good"], ROLLOUT_FINDING_BEYOND: ["beyond", "bad"], ROLLOUT_FINDING_OPEN: ["needs more", ""] };
const OUTCOMES = { ROLLOUT_OUTCOME_DONE: "good", ROLLOUT_OUTCOME_ROLLED_BACK: "bad", ROLLOUT_OUTCOME_ABORTED: "warn" };
const shown = new Map();

export async function showRollout(section, place, model, aliases, refresh) {
  if (refusal("GetRollout")) return;
  const names = new Set(aliases.map((one) => `${model}:${one.name}`));
  const had = (await get(`/v1/rollouts?name_prefix=${encodeURIComponent(model)}`)).rollouts.filter((one) => names.has(one.alias));
  const told = await Promise.all(had.map((one) => get(`${aliasPath(one.alias)}/rollout`)));
  section.hidden = !told.length;
  const ids = new Set(told.map((one) => one.rollout.id));
  for (const [id, card] of shown) if (!ids.has(id)) { card.root.remove(); shown.delete(id); }
  for (const one of told) {
    if (!shown.has(one.rollout.id)) {
      const card = cardOf(one.rollout);
      shown.set(one.rollout.id, card);
      place.append(card.root);
    }
    await fill(shown.get(one.rollout.id), one, refresh);
  }
}

function cardOf(rollout) {
  const card = { head: el("div", { className: "line" }), facts: el("div"), table: el("div"), sizes: el("div"), pictures: el("div"), key: "" };
  card.measures = new Rows(card.table, `Measures of the rollout of ${rollout.alias}`, ["Measure", "Finding", "Measured", "Allowed", "Samples"], [4]);
  card.counts = new Rows(card.sizes, `What both versions found, ${rollout.alias}`, ["Boxes", "Stable", "Candidate", "Matched"], [1, 2, 3]);
  card.root = el("article", { className: "card stack", "aria-label": `Rollout of ${rollout.alias}` }, card.head, card.facts, card.table, card.sizes, card.pictures);
  return card;
}

async function fill(card, told, refresh) {
  const one = told.rollout, steps = one.plan.steps.length ? one.plan.steps : [10, 100, 500, 1000];
  const key = JSON.stringify([one, told.waits_for]);
  if (card.key !== key) {
    card.key = key;
    const end = async () => { if (await abort(one.alias, one.stable)) refresh(); };
    card.head.replaceChildren(el("h3", {}, `${one.alias}: version ${one.stable} to ${one.candidate}`),
      one.running ? badge(`step ${one.step + 1} of ${steps.length}: ${steps[one.step] / 10} % of requests`, "note") : badge(word(one.outcome, "ROLLOUT_OUTCOME_"), OUTCOMES[one.outcome]),
      ...(one.running ? [el("div", { className: "actions" }, button("AbortRollout", "End the rollout", end, { className: "danger" }))] : []));
    card.facts.replaceChildren(facts([["began", ago(one.since_unix_s)], ["by", one.by], ["why", one.why], ["waits for", told.waits_for.join("; ")], ["because", one.reasons.join("; ")]]),
      ...(one.findings.length && !told.measures.length ? [el("ul", {}, one.findings.map((text) => el("li", {}, text)))] : []));
  }
  if (told.measures.length) {
    card.measures.show(told.measures.map((measure) => {
      const [text, kind] = FINDINGS[measure.finding] || ["–", ""];
      return { key: measure.name, cells: [measure.name, badge(text, kind), measure.value, measure.allowed, count(measure.samples)] };
    }));
    const counts = [...told.sizes, ...told.classes.slice(0, 12)];
    if (counts.length) card.counts.show(counts.map((line) => ({ key: line.name, cells: [line.name, count(line.stable), count(line.candidate), line.matched ? count(line.matched) : "–"] })));
  } else { card.table.replaceChildren(); card.sizes.replaceChildren(); }
  if (one.plan.keep_images) await showPictures(card, one);
}

async function showPictures(card, one) {
  const why = refusal("GetDisagreements");
  if (why) { card.pictures.replaceChildren(el("p", { className: "small muted" }, `Pictures on which both disagree are not shown, since ${why}.`)); return; }
  const told = await get(`${aliasPath(one.alias)}/disagreements`).catch(() => null);
  if (!told?.disagreements.length) return;
  const key = told.disagreements.map((each) => each.encoded.length).join();
  if (card.pictures.dataset.key === key) return;
  card.pictures.dataset.key = key;
  card.pictures.replaceChildren(el("h3", {}, "Where both disagree most"), el("p", { className: "key" }, el("span", { className: "swatch f-m0" }), " stable ", el("span", { className: "swatch f-m1" }), " candidate"),
    el("div", { className: "pictures" }, told.disagreements.map((each) => picture(each))));
}
