// The fleet as it changes, while the page can be seen: {fleet, workers, statistics}.
import { find, write } from "./dom.js";
import { hasEnded, refusal } from "./session.js";

const STREAM = "/console/stream";
const PARTS = ["fleet", "workers", "statistics"];

/** Calls `changed(now)` with all that is known, after each change. Answers why there is no stream for
 * this caller, or an empty text. */
export function follow(changed) {
  const why = refusal("ListWorkers");
  if (why) {
    state("", "");
    return why;
  }
  const now = {};
  let source = null;
  let due = 0;
  const draw = () => { due = 0; changed(now); };
  const open = () => {
    state("", "connecting");
    source = new EventSource(STREAM);
    source.onopen = () => state("live", "live");
    source.onerror = () => {
      state("lost", source.readyState === EventSource.CLOSED ? "ended" : "no answer");
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 3000);
    };
    // The session has ended, or was given less: the page begins anew, and says so.
    source.addEventListener("problem", () => { source.close(); location.reload(); });
    for (const part of PARTS) {
      source.addEventListener(part, (event) => {
        now[part] = JSON.parse(event.data);
        if (PARTS.every((one) => one in now)) due ||= requestAnimationFrame(draw);
      });
    }
  };
  const again = async () => {
    if (document.hidden) return;
    if (await hasEnded()) location.reload(); else open();
  };
  // A page that nobody sees costs nothing, and leaves its connection to others.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); source = null; state("", "paused"); } else if (!source) open();
  });
  if (!document.hidden) open();
  return "";
}

function state(kind, text) {
  const place = find("connection");
  place.dataset.state = kind;
  write(place, text);
}
