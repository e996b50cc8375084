// What an operator orders, each asked for once more before it is done. All of it goes by the REST routes,
// which check and write to the audit log who did it.
import { aliasPath, api, get, modelPath } from "./api.js";
import { ask, tell } from "./dialogs.js";
import { el } from "./dom.js";
import { refusal } from "./session.js";

/** Of these methods those that the caller may not call, with the reason. */
export function notOffered(methods) {
  return Object.fromEntries(methods.map((method) => [method, refusal(method)]).filter(([, why]) => why));
}

/** A button, or nothing where the method is not the caller's. */
export function button(method, label, run, more = {}) {
  return refusal(method) ? null : el("button", { type: "button", onclick: run, ...more }, label);
}

/** A sentence for what is not offered: {word: method}. Nothing where all is. */
export function reasons(offered) {
  const by = new Map();
  for (const [label, method] of Object.entries(offered)) {
    const why = refusal(method);
    if (why) by.set(why, [...(by.get(why) || []), label]);
  }
  return [...by].map(([why, labels]) => el("p", { className: "small muted" }, `Not offered: ${labels.join(", ")}, since ${why}.`));
}

async function plan(reference, replicas) {
  try {
    const told = await api("POST", "/v1/plan", { model: reference, replicas });
    const steps = told.steps.map((step) => el("li", {}, step.line));
    return steps.length ? [el("p", {}, "It would be done so:"), el("ul", {}, steps)] : ["It is loaded already: nothing would be done."];
  } catch (error) {
    return [`What it would take is not known: ${error.message}`];
  }
}

export async function load(reference, replicas = 1) {
  const place = el("div");
  const look = async (wanted) => { if (!refusal("PlanLoad")) place.replaceChildren(...(await plan(reference, wanted))); };
  await look(replicas || 1);
  return ask({
    title: `Load ${reference}?`, text: place, action: "Load", changed: ({ replicas: wanted }) => look(wanted || 1),
    fields: [{ name: "replicas", label: "Replicas: on so many workers", kind: "number", value: replicas || 1, min: 1, max: 1000, required: true },
      { name: "pin", label: "Pin: never released to make room for another", kind: "checkbox", value: false }],
    run: async ({ replicas: wanted, pin }) => {
      await api("POST", `${modelPath(reference)}/load`, { replicas: wanted, pin });
      tell(`${reference} is being loaded${pin ? " and pinned" : ""}.`);
    },
  });
}

export const unload = (reference) => ask({
  title: `Unload ${reference}?`, text: "Its replicas leave behind their last requests. A later request loads it again, and waits for that.", action: "Unload", danger: true,
  run: async () => {
    await api("POST", `${modelPath(reference)}/unload`);
    tell(`${reference} is being unloaded.`);
  },
});

export const pin = (reference, isPinned) => ask({
  title: `${isPinned ? "Unpin" : "Pin"} ${reference}?`, action: isPinned ? "Unpin" : "Pin",
  text: isPinned ? "It stays where it is until its room is worth more to another model." : "It is loaded now, if it is not, and never released to make room for another.",
  run: async () => {
    await api("PUT", `${modelPath(reference)}/residency`, { mode: isPinned ? "RESIDENCY_MODE_NORMAL" : "RESIDENCY_MODE_HOT_STANDBY" });
    tell(`${reference} is ${isPinned ? "no longer pinned" : "pinned"}.`);
  },
});

export const promote = (model, version, aliases) => ask({
  title: `Promote ${model}@${version}?`, action: "Promote",
  text: "The alias moves once this version is loaded and warm; requests go on without a gap.",
  fields: [{ name: "alias", label: "Alias", value: aliases[0] || "stable", required: true, pattern: "[a-z0-9]([a-z0-9._\\-]*[a-z0-9])?" },
    { name: "why", label: "Why, for the record", value: "", maxlength: 500 }],
  run: async ({ alias, why }) => {
    await api("POST", `${modelPath(`${model}@${version}`)}/promote`, { alias, why });
    tell(`${model}:${alias} is moving to version ${version}.`);
  },
});

export const rollBack = (alias, revision, target) => ask({
  title: `Roll ${alias} back?`, text: `It goes back to ${target}, where it was before its last promotion.`, action: "Roll back", danger: true,
  fields: [{ name: "why", label: "Why, for the record", value: "", maxlength: 500 }],
  run: async ({ why }) => {
    await api("POST", `${aliasPath(alias)}/rollback`, { expected_revision: revision, why });
    tell(`${alias} is going back.`);
  },
});

export const abort = (alias, stable) => ask({
  title: `End the rollout of ${alias}?`, text: `The alias means version ${stable} alone again.`, action: "End the rollout", danger: true,
  fields: [{ name: "why", label: "Why, for the record", value: "", maxlength: 500 }],
  run: async ({ why }) => {
    await api("DELETE", `${aliasPath(alias)}/rollout?why=${encodeURIComponent(why)}`);
    tell(`The rollout of ${alias} ends.`);
  },
});

export const drain = (worker) => ask({
  title: `Drain ${worker}?`, action: "Drain", danger: true,
  text: "What is wanted of its models is loaded elsewhere first, as far as there is room. Then it answers its last requests, and its process ends.",
  run: async () => {
    const told = await api("POST", `/v1/workers/${encodeURIComponent(worker)}/drain`);
    const left = told.not_moved.map((key) => `${key.model}@${key.version}`);
    tell(left.length ? `${worker} is draining. Nobody else has room for ${left.join(", ")}.` : `${worker} is draining.`, left.length > 0);
  },
});

export const versionOf = (reference) => get(modelPath(reference));
