// A device's memory as a bar: weights by model, workspace, other, used by others, free.
import { el } from "./dom.js";
import { bytes, percent, versionName } from "./format.js";

const COLOURS = 8;
const MAX_NAMED = 6;
const slots = new Map();
const HOT = "REPLICA_STATE_HOT";

/** The colour of a model: the same on every device, and as long as the page is open. */
export function colour(model) {
  if (!slots.has(model)) slots.set(model, slots.size);
  return `f-m${slots.get(model) % COLOURS}`;
}

/** The parts of a ledger: {name, bytes, fill, model}, and what they are of. */
export function parts(worker) {
  const ledger = worker.ledger || {};
  const hot = worker.replicas.filter((one) => one.state === HOT).sort((a, b) => b.weights_bytes - a.weights_bytes);
  const weights = hot.map((one) => ({ name: versionName(one.version), bytes: one.weights_bytes, fill: colour(one.version.model), model: one.version.model }));
  const other = ["context_bytes", "graph_pool_bytes", "backend_private_bytes", "load_transient_bytes"].reduce((sum, name) => sum + (ledger[name] || 0), 0);
  const named = weights.slice(0, MAX_NAMED);
  const rest = weights.slice(MAX_NAMED);
  if (rest.length) named.push({ name: `${rest.length} more`, bytes: rest.reduce((sum, one) => sum + one.bytes, 0), fill: "f-rest" });
  const unnamed = (ledger.weights_bytes || 0) - weights.reduce((sum, one) => sum + one.bytes, 0);
  if (unnamed > 0) named.push({ name: "other weights", bytes: unnamed, fill: "f-rest" });
  const total = (ledger.budget_bytes || 0) + (ledger.foreign_bytes || 0);
  const held = [...named,
    { name: "workspace", bytes: ledger.workspace_bytes || 0, fill: "f-workspace" },
    { name: "context and buffers", bytes: other, fill: "f-other" },
    { name: "other processes", bytes: ledger.foreign_bytes || 0, fill: "f-foreign" }];
  const taken = held.reduce((sum, one) => sum + one.bytes, 0);
  return { held: held.filter((one) => one.bytes > 0), free: Math.max(0, total - taken), total: Math.max(total, taken, 1) };
}

/** The bar and its parts in words, of which only what changed is made anew. */
export class LedgerBar {
  constructor() {
    this.bar = el("div", { className: "ledger", role: "img" });
    this.list = el("ul", { className: "parts" });
    this.segments = new Map();
    this.said = "";
  }

  /** Answers the bytes that are free, and those there are. */
  show(worker) {
    const { held, free, total } = parts(worker);
    const names = new Set(held.map((one) => one.name));
    for (const [name, segment] of this.segments) if (!names.has(name)) { segment.remove(); this.segments.delete(name); }
    held.forEach((one, place) => {
      let segment = this.segments.get(one.name);
      if (!segment) this.segments.set(one.name, (segment = el("i")));
      segment.className = one.fill;
      segment.style.width = `${(100 * one.bytes) / total}%`;
      segment.title = `${one.name}: ${bytes(one.bytes)}`;
      if (this.bar.children[place] !== segment) this.bar.insertBefore(segment, this.bar.children[place] || null);
    });
    const said = [...held, { name: "free", bytes: free, fill: "f-free" }];
    const text = said.map((one) => `${one.name} ${bytes(one.bytes)}`).join(", ");
    if (text === this.said) return { free, total };
    this.said = text;
    this.bar.setAttribute("aria-label", `Memory: ${percent(1 - free / total)} of ${bytes(total)} used: ${text}`);
    this.list.replaceChildren(...said.map((one) => el("li", {}, el("span", { className: `swatch ${one.fill}` }),
      one.model ? el("a", { href: `/console/model?name=${encodeURIComponent(one.model)}`, title: one.name }, one.name) : one.name,
      el("span", { className: "muted nowrap" }, bytes(one.bytes)))));
    return { free, total };
  }
}
