// Alerts that fire or are about to, what is silenced, and the rules.
import { button, reasons } from "./actions.js";
import { api, get } from "./api.js";
import { ask, showProblem, tell } from "./dialogs.js";
import { badge, el, empty, find, write } from "./dom.js";
import { ago, bytes, moment, percent, plural, word } from "./format.js";
import { Rows } from "./rows.js";
import { refusal, signedIn } from "./session.js";

const EVERY_MS = 10000, RULES_EVERY = 6;
const KINDS = { critical: "bad", warning: "warn" };
let due = 0;
let looks = 0;
let known = [];

await signedIn();
const ended = new Rows(find("ended"), "Alerts that ended", ["Rule", "About", "Fired", "Ended", "By"]);
const silences = new Rows(find("silences"), "Silences", ["Rule", "About", "Until", "Why", "By", ""]);
const rules = new Rows(find("rules"), "Rules of alerts", ["Rule", "Severity", "About", "Fires", "Set otherwise"]);
const why = refusal("ListAlerts");
if (why) find("now").replaceChildren(empty(`Alerts are not shown to you: ${why}.`));
else {
  find("actions").replaceChildren(...[button("SilenceAlerts", "Silence", () => silence("", ""))].filter(Boolean), ...reasons({ Silence: "SilenceAlerts", Resolve: "ResolveAlert" }));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  look();
}

async function look() {
  clearTimeout(due);
  try {
    if (looks++ % RULES_EVERY === 0) known = (await get("/v1/alerts/rules")).rules; // they hardly change
    const [{ alerts }, quiet] = await Promise.all([get("/v1/alerts"), get("/v1/alerts/silences")]);
    show(alerts, quiet.silences);
    showProblem(find("problem"), null);
  } catch (error) { showProblem(find("problem"), error); }
  due = setTimeout(() => { if (!document.hidden) look(); }, EVERY_MS);
}

function show(alerts, quiet) {
  const units = new Map(known.map((one) => [one.name, one.unit]));
  const firing = alerts.filter((one) => one.stage === "ALERT_STAGE_FIRING");
  write(find("sum"), `${firing.length} firing, ${alerts.filter((one) => one.stage === "ALERT_STAGE_PENDING").length} pending`);
  const now = alerts.filter((one) => one.stage !== "ALERT_STAGE_RESOLVED").map((one) => card(one, units.get(one.rule)));
  put(find("now"), now.length ? now : [empty("Nothing fires.")]);
  const past = alerts.filter((one) => one.stage === "ALERT_STAGE_RESOLVED");
  if (past.length) ended.show(past.map((one) => ({ key: one.id, cells: [one.rule, one.subject || "the pool", ago(one.fired_unix_s), ago(one.resolved_unix_s), one.resolved_by || "itself"] })));
  else ended.none("None.");
  if (quiet.length) silences.show(quiet.map((one) => ({ key: one.id, cells: [one.rule || "all", one.subject || "all", moment(one.until_unix_s), one.why || "–", one.by, button("EndSilence", "End", () => end(one), { "aria-label": `End the silence of ${one.rule || "all rules"}` }) || "–"] })));
  else silences.none("Nothing is silenced.");
  rules.show(known.map((one) => ({ key: one.name, cells: [one.name, badge(one.severity, KINDS[one.severity]), one.about || "the pool", fires(one), one.thresholds.map((set) => `${set.pattern}: ${set.off ? "never" : shown(set.value ?? one.threshold, one.unit)}`).join(", ") || "–"] })));
}

function card(one, unit) {
  const isFiring = one.stage === "ALERT_STAGE_FIRING";
  const orders = [isFiring ? button("ResolveAlert", "Resolve", () => resolve(one)) : null, one.silence ? null : button("SilenceAlerts", "Silence", () => silence(one.rule, one.subject))].filter(Boolean);
  return el("article", { className: `card finding ${one.severity}`, "aria-label": `${one.rule} ${one.subject}` },
    el("div", { className: "line" }, el("h3", {}, one.rule), badge(word(one.stage, "ALERT_STAGE_"), isFiring ? KINDS[one.severity] : ""), one.subject ? badge(one.subject) : null, one.silence ? badge("silenced") : null, el("div", { className: "actions" }, orders)),
    el("p", {}, one.summary), el("p", { className: "small muted" }, `${shown(one.value, unit)}, fires at ${shown(one.threshold, unit)} · since ${ago(one.since_unix_s)}`));
}

const shown = (value, unit) => ({ ratio: percent(value), s: `${Math.round(value * 1000) / 1000} s`, bytes: bytes(value) })[unit] || String(Math.round(value * 100) / 100);

function fires(rule) {
  const pause = rule.for_s ? ` for ${plural(rule.for_s, "s", "s")}` : "";
  return `${rule.below ? "below" : "above"} ${shown(rule.threshold, rule.unit)}${pause}${rule.built_in ? "" : ", in Prometheus alone"}`;
}

function put(place, made) {
  const next = el("div", { className: "stack" }, made);
  if (!place.firstElementChild?.isEqualNode(next)) place.replaceChildren(next);
}

async function resolve(one) {
  const isDone = await ask({ title: `Resolve ${one.rule}?`, text: "Receivers are told that it ended. It fires again only after its condition has ended and come back.", action: "Resolve",
    run: async () => { await api("POST", `/v1/alerts/${encodeURIComponent(one.id)}/resolve`); tell(`${one.rule} is resolved.`); } });
  if (isDone) look();
}

async function silence(rule, subject) {
  const isDone = await ask({ title: "Silence alerts?", text: "Nobody is told of those that match; they are listed all the same.", action: "Silence",
    fields: [{ name: "rule", label: "Rule", value: rule, hint: "a name or a pattern; empty: all" }, { name: "subject", label: "About", value: subject, hint: "a model, worker or pattern; empty: all" },
      { name: "minutes", label: "Minutes", kind: "number", value: 60, min: 1, max: 525600, required: true }, { name: "why", label: "Why, for the record", value: "", maxlength: 500 }],
    run: async ({ minutes, ...given }) => { await api("POST", "/v1/alerts/silences", { ...given, for_s: 60 * minutes }); tell("It is silenced."); } });
  if (isDone) look();
}

async function end(one) {
  const isDone = await ask({ title: "End this silence?", text: "Alerts that match and still fire are told then.", action: "End it",
    run: async () => { await api("DELETE", `/v1/alerts/silences/${encodeURIComponent(one.id)}`); tell("The silence ended."); } });
  if (isDone) look();
}
