"""The value of keeping a version on a worker: the seconds of cold starts that it saves. Pure.

GreedyDual-Size-Frequency; the formula is `yolopool.server.gdsf`.
"""

from collections.abc import Mapping

from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.footprint import Footprint, FootprintKey, measured
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import DeviceVariant, ModelVersion, VersionKey
from control_plane.types.worker import Replica
from yolopool.server.arrival_rates import NO_ARRIVALS, ArrivalRates
from yolopool.server.gdsf import gdsf_value
from yolopool.vocabulary import Priority

# Until it was measured: opening a pack, and reading it from a store of 10 Gbit/s.
FETCH_FIXED_S, FETCH_BYTES_PER_S = 0.05, 1.25e9
WEIGHTS = {Priority.INTERACTIVE: 4.0, Priority.NORMAL: 1.0, Priority.BULK: 0.25}
GIB = 1024**3


def rates(fleet: ProposedFleet, snapshot: Snapshot, key: VersionKey, now: float) -> ArrivalRates:
    """Requests for a version on all workers that have it or had it. now: monotonic seconds."""
    departed = snapshot.departed.get(key)
    total = departed.now(now) if departed is not None else NO_ARRIVALS
    for worker_id in fleet.holder_ids.get(key, ()):
        replica = fleet.workers[worker_id].info.replicas.get(key)
        if replica is not None:
            total = total + replica.rates
    return total


def cold_start_s(
    version: ModelVersion, build: DeviceVariant, known: Mapping[FootprintKey, Footprint]
) -> float:
    """Seconds from the artifact store to the device of such a worker, measured or estimated."""
    pack, made = version.made_by(build)
    if pack is None:
        return 0.0
    found = measured(FootprintKey.of(pack.digest, made), known)
    guess = FETCH_FIXED_S + pack.weights_bytes / FETCH_BYTES_PER_S
    if found is None:
        return guess
    return (found.fetch_ms / 1000 or guess) + found.swap_ms / 1000


def replica_value(
    fleet: ProposedFleet,
    snapshot: Snapshot,
    worker: ProposedWorker,
    replica: Replica,
    now: float,
    priority: Priority,
) -> float:
    """Seconds that a replica saves a second and byte; copies of a version share what they save.
    `priority`: of the version.
    """
    version = snapshot.desired.versions.get(replica.key)
    if version is None:
        return 0.0
    estimate = rates(fleet, snapshot, replica.key, now).estimate
    if not estimate:
        return 0.0
    cost_s = cold_start_s(version, worker.build, snapshot.footprints)
    copies = max(1, len(fleet.holder_ids.get(replica.key, ())))
    held_s = snapshot.unix_s - replica.hot_since_unix_s if replica.hot_since_unix_s else 0.0
    weight = WEIGHTS[priority]
    return gdsf_value(weight * estimate / copies, cost_s, replica.weights_bytes, held_s)


def per_gib(rate: float, cost_s: float, weights_bytes: int) -> float:
    """Seconds of cold starts saved a second and GiB, the unit that people are shown."""
    return rate * cost_s * GIB / max(1, weights_bytes)
