// Where each model stands, put together from the registry, the workers and the requests. No page in it.

const ORDER = ["hot", "warm", "loading", "waiting", "failed", "importing", "cold"];
const OF_STATE = { REPLICA_STATE_HOT: "hot", REPLICA_STATE_WARM: "warm", REPLICA_STATE_ASSIGNED: "loading", REPLICA_STATE_FAILED: "failed" };
const TEXTS = { hot: "on device", warm: "in host memory", loading: "loading", waiting: "waiting", failed: "failed", importing: "importing", cold: "not loaded" };

export const tierText = (tier) => TEXTS[tier];

/** One line a model; `workers` and `statistics` may not be known. */
export function standings(models, workers = [], statistics = []) {
  const replicas = new Map(), figures = new Map();
  for (const worker of workers) for (const one of worker.replicas) add(replicas, one.version.model, one);
  for (const one of statistics) add(figures, one.version.model, one);
  return models.map((model) => standing(model, replicas.get(model.name) || placesOf(model, workers), figures.get(model.name) || []));
}

function add(map, key, value) {
  if (!map.has(key)) map.set(key, []);
  map.get(key).push(value);
}

/** For who may not see the workers: what the registry tells of a model's places. */
const placesOf = (model, workers) => (workers.length ? [] : model.versions.flatMap((one) => one.replicas.map((place) => place.replica)));

function standing(model, replicas, figures) {
  const newest = model.versions[0];
  const served = model.versions.find((one) => one.version.version === model.default_version) || newest;
  const sum = (name) => figures.reduce((total, one) => total + one[name], 0);
  const asked = sum("requests_per_s");
  const most = (name) => figures.reduce((top, one) => Math.max(top, one[name]), 0);
  const steps = figures.length ? figures[0].steps.map((_, at) => figures.reduce((total, one) => total + (one.steps[at] || 0), 0)) : [];
  const tier = tierOf(model, replicas, newest);
  const waits = model.versions.find((one) => one.waiting_reason);
  return {
    name: model.name, tier, order: ORDER.indexOf(tier), versions: model.versions.length,
    hot: replicas.filter((one) => one.state === "REPLICA_STATE_HOT").length, placed: replicas.length,
    isMeasured: figures.length > 0, rate: asked, errors: sum("errors_per_s"), p50: most("p50_ms"), p99: most("p99_ms"),
    hits: asked ? figures.reduce((total, one) => total + one.hit_ratio * one.requests_per_s, 0) / asked : 0,
    bytes: served ? served.weights_bytes : 0, steps,
    trouble: newest?.state === "VERSION_STATE_FAILED" ? "import failed" : waits ? "not placed" : replicas.some((one) => one.state === "REPLICA_STATE_FAILED") ? "load failed" : "",
  };
}

function tierOf(model, replicas, newest) {
  const tiers = replicas.map((one) => OF_STATE[one.state]).filter(Boolean);
  if (tiers.length) return ORDER.find((one) => tiers.includes(one));
  if (newest && ["VERSION_STATE_UPLOADED", "VERSION_STATE_IMPORTING"].includes(newest.state)) return "importing";
  if (newest?.state === "VERSION_STATE_FAILED" && !model.default_version) return "failed";
  return model.versions.some((one) => one.waiting_reason) ? "waiting" : "cold";
}

/** In the order of a column; names break ties, so that nothing jumps for nothing. */
export function sorted(rows, by, isUp) {
  const value = (row) => (by === "tier" ? row.order : by === "steps" ? row.rate : row[by]);
  const compared = (a, b) => (typeof value(a) === "string" ? value(a).localeCompare(value(b)) : value(a) - value(b));
  return [...rows].sort((a, b) => (isUp ? 1 : -1) * compared(a, b) || a.name.localeCompare(b.name));
}
