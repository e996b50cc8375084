// What the doctor finds in the last minutes of the request log.
import { get } from "./api.js";
import { badge, el, empty, find, write } from "./dom.js";
import { count, ms, percent, plural } from "./format.js";
import { refusal, signedIn } from "./session.js";

const EVERY_MS = 10000;
let due = 0;
const KINDS = { critical: "bad", warning: "warn", note: "note" };

await signedIn();
const why = refusal("GetStatistics");
if (why) find("findings").replaceChildren(empty(`Findings are not shown to you: ${why}.`));
else {
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  look();
}



async function look() {
  clearTimeout(due);
  try { show(await get("/console/findings")); } catch (error) { put(empty(error.message)); }
  due = setTimeout(() => { if (!document.hidden) look(); }, EVERY_MS);
}

function show(told) {
  if (told.why) { put(empty(told.why)); return; }
  write(find("sum"), `${plural(told.requests, "request")} of the last ${Math.round(told.window_s / 60)} minutes, ${count(told.answered)} answered`);
  if (told.findings.length) put(...told.findings.map(card));
  else put(empty(told.requests ? "Nothing stands out: no cause takes a tenth of the time of requests." : "No request in the last minutes: there is nothing to look at."));
}

function put(...made) {
  const place = find("findings"), next = el("div", {}, made), now = el("div", {}, [...place.children].map((one) => one.cloneNode(true)));
  if (!now.isEqualNode(next)) place.replaceChildren(...next.children);
}

function card(one) {
  const evidence = `${one.evidence[0].toUpperCase()}${one.evidence.slice(1)}.`;
  return el("article", { className: `card finding ${one.severity}` },
    el("div", { className: "finding-head" }, badge(one.severity, KINDS[one.severity]), el("h2", {}, one.title), el("span", { className: "small muted" }, one.cause)),
    el("p", {}, evidence), one.change.length ? el("div", {}, el("h3", {}, "What to change"), el("pre", { tabindex: "0", "aria-label": "What to change" }, one.change.join("\n"))) : null,
    el("p", { className: "small muted" }, `Expected gain: at most ${ms(one.cost_ms)} of each of ${plural(one.rows, "request")}, ${percent(one.share)} of their time. For example ${one.requests.join(", ")}.`));
}
