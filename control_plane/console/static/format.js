// Numbers as people read them, each with its unit.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count) {
  let value = Number(count) || 0, unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)}\u00a0${UNITS[unit]}`;
}

export function ms(value) {
  if (!value) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(1)}\u00a0s`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0ms`;
}

export function rate(value) {
  if (!value) return "0/s";
  if (value < 0.1) return "<0.1/s";
  return `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")}/s`;
}

export const percent = (share) => `${Math.round(100 * (share || 0))}\u00a0%`;

export const count = (value) => Number(value || 0).toLocaleString("en");

export const plural = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

export function ago(unix_s, now = Date.now() / 1000) {
  const past = Math.max(0, now - unix_s);
  if (past < 60) return `${Math.round(past)} s ago`;
  if (past < 3600) return `${Math.round(past / 60)} min ago`;
  if (past < 172800) return `${Math.round(past / 3600)} h ago`;
  return `${Math.round(past / 86400)} days ago`;
}

export const clock = (unix_s) => new Date(unix_s * 1000).toLocaleTimeString("en-GB");

export const moment = (unix_s) => new Date(unix_s * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** VERSION_STATE_READY -> ready. */
export const word = (name, prefix = "") => name.replace(prefix, "").toLowerCase().replaceAll("_", " ");

export const versionName = (key) => `${key.model}@${key.version}`;
