// Events as they happen, the newest first, while the page can be seen.
import { badge, el, empty, find, write } from "./dom.js";
import { clock, moment, plural, versionName, word } from "./format.js";
import { hasEnded, refusal, signedIn } from "./session.js";

const KEPT = 500, FIRST = 200;
const BAD = /FAILED|LOST|CRASHED|QUARANTINED|REFUSES/, GOOD = /JOINED|ASSIGNED|REGISTERED|RESTORED/;
const kept = [];
let source = null, last = "", isPaused = false;

await signedIn();
const why = refusal("WatchEvents");
if (why) find("events").replaceWith(empty(`Events are not shown to you: ${why}.`));
else start();

function start() {
  find("events").replaceChildren(el("li", {}, el("span", { className: "muted" }, "Waiting for events.")));
  find("filters").addEventListener("input", draw);
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    find("pause").setAttribute("aria-pressed", String(isPaused));
    write(find("pause"), isPaused ? "Go on" : "Pause");
    if (!isPaused) draw();
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) { source?.close(); source = null; } else if (!source) open(); });
  open();
}

function open() {
  source = new EventSource(last ? `/v1/events?follow=true&after=${encodeURIComponent(last)}` : `/v1/events?follow=true&last=${FIRST}`);
  source.onopen = () => state("live", "live");
  source.onerror = () => {
    state("lost", "no answer");
    if (source.readyState === EventSource.CLOSED) setTimeout(again, 3000);
  };
  source.onmessage = (message) => take(JSON.parse(message.data));
  source.addEventListener("problem", () => { source.close(); setTimeout(again, 3000); });
}

async function again() {
  if (await hasEnded()) location.reload(); else open();
}

function take(event) {
  last = event.id;
  kept.unshift(event);
  if (kept.length > KEPT) kept.pop();
  const kind = find("kind");
  if (![...kind.options].some((one) => one.value === event.kind)) kind.append(el("option", { value: event.kind }, word(event.kind, "EVENT_KIND_")));
  if (!isPaused) requestAnimationFrame(draw);
}

const lines = new Map();

function draw() {
  const text = find("text").value.trim().toLowerCase(), kind = find("kind").value;
  const shown = kept.filter((one) => (!kind || one.kind === kind) && (!text || said(one).toLowerCase().includes(text)));
  write(find("count"), `${plural(shown.length, "event")}`);
  const list = find("events");
  for (const one of shown) if (!lines.has(one.id)) lines.set(one.id, lineOf(one));
  const wanted = shown.map((one) => lines.get(one.id));
  if (wanted.length) { if (wanted.length !== list.children.length || wanted[0] !== list.firstElementChild) list.replaceChildren(...wanted); }
  else list.replaceChildren(el("li", {}, el("span", { className: "muted" }, kept.length ? "No event fits the filter." : "Nothing happened yet.")));
  if (lines.size > 2 * KEPT) for (const id of lines.keys()) if (!kept.some((one) => one.id === id)) lines.delete(id);
}

const said = (one) => [word(one.kind, "EVENT_KIND_"), one.worker, one.version ? versionName(one.version) : "", one.reason, one.message].filter(Boolean).join(" ");

function lineOf(one) {
  const kind = BAD.test(one.kind) ? "bad" : GOOD.test(one.kind) ? "good" : "";
  const about = [one.version?.model ? el("a", { href: `/console/model?name=${encodeURIComponent(one.version.model)}` }, versionName(one.version)) : null, one.worker ? ` ${one.worker}` : null,
    one.message ? ` ${one.message}` : null, one.reason ? el("span", { className: "small muted" }, ` ${one.reason}`) : null];
  return el("li", {}, el("time", { datetime: new Date(one.unix_s * 1000).toISOString(), title: moment(one.unix_s) }, clock(one.unix_s)), el("span", {}, badge(word(one.kind, "EVENT_KIND_"), kind)), el("span", {}, about));
}

function state(kind, text) {
  find("connection").dataset.state = kind;
  write(find("connection"), text);
}
