"""The keys of the registry in Redis, and what is under each."""

META = "yolopool:meta"  # hash: cluster, epoch, counter, revision, mark, held
VERSIONS = "yolopool:versions"  # hash: name@number -> version
NUMBERS = "yolopool:numbers"  # hash: name -> highest number ever given
WANTS = "yolopool:wants"  # hash: name@number -> want
IMPORTS = "yolopool:imports"  # hash: name@number -> order, importer and end of its lease
REQUEST = "yolopool:request:"  # + request id: name@number, for a day
LEASE = "yolopool:lease"  # string: token, holder; expires
WORKERS = "yolopool:workers"  # set: worker ids
CORDONS = "yolopool:cordons"  # hash: worker id -> incarnation that is to drain
SCHEDULES = "yolopool:schedules"  # hash: name -> schedule
API_KEYS = "yolopool:api_keys"  # hash: id -> key, with hashes of its secrets
TENANTS = "yolopool:tenants"  # hash: name -> tenant
ALIASES = "yolopool:aliases"  # hash: model:name -> alias
RULES = "yolopool:rules"  # hash: pattern of model names -> rule
WATCHES = "yolopool:watches"  # hash: name -> watch, with what it saw
ALERTS = "yolopool:alerts"  # hash: kind/name -> receiver, silence or threshold
ALERT_STATES = "yolopool:alert_states"  # hash: rule|subject -> alert, with what was told of it
ALERT_READINGS = "yolopool:alert_readings"  # hash: control plane -> its series as JSON
PARTS = "yolopool:parts"  # hash: revision, :control plane -> end, tenant -> demand, share as JSON
EVIDENCE = "yolopool:evidence:"  # + rollout and step: hash: control plane -> sums as JSON; expires
USAGE = "yolopool:usage:"  # + day: hash: tenant\\nmeasure -> amount; expires
USAGE_SEQUENCE = "yolopool:usage_sequence:"  # + control plane: its last addition; expires
FOOTPRINTS = "yolopool:footprints"  # hash: pack, variant, device kind[/class] -> JSON
WORKER = "yolopool:worker:"  # + id: worker; expires
EVENTS = "yolopool:events"  # stream, capped: event -> JSON
LOG = "yolopool:log"  # stream: <revision>-1, mark, [hash, field] that were written
CHANGES = "yolopool:changes"  # channel: revision

# Hashes whose fields the log names: desired state.
LOGGED = (
    VERSIONS, WANTS, CORDONS, SCHEDULES, NUMBERS, API_KEYS, TENANTS, ALIASES, RULES, WATCHES,
    ALERTS,
)  # fmt: skip
# Of these an earlier release knows nothing: the log names their fields where it does not read.
NEWER = (TENANTS, ALIASES, RULES, WATCHES, ALERTS)
# Hashes whose lengths are recorded with each revision.
COUNTED = (*LOGGED, IMPORTS)
