"""Discrepancies: what a worker reports that desired state or its ledger does not explain. Pure.

Nothing is decided here: plans release unknown versions, and a budget follows what other processes
use. A discrepancy is an event, since someone may have to look into it.
"""

from collections.abc import Iterable, Mapping

from control_plane.types.desired import Desired
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo, WorkerState

# Share of a worker's budget; smaller amounts come and go.
MIN_SHARE = 0.05
MIB = 2**20

# The incarnation of a worker, and what is unexplained about it.
Subject = tuple[str, str]


def discrepancies(workers: Iterable[WorkerInfo], desired: Desired) -> Mapping[Subject, str]:
    """Sentences for people by subject. A subject stays the same while the discrepancy lasts."""
    found: dict[Subject, str] = {}
    for worker in workers:
        if worker.state is WorkerState.LOST:
            continue
        ledger, process = worker.ledger, worker.incarnation
        threshold_bytes = MIN_SHARE * (ledger.budget_bytes + ledger.foreign_bytes)
        if ledger.foreign_bytes > threshold_bytes:
            size = ledger.foreign_bytes / MIB
            found[process, "foreign"] = (
                f"other processes use {size:,.0f} MiB of its device: its budget is smaller by that"
            )
        if ledger.drift_bytes > threshold_bytes:
            size = ledger.drift_bytes / MIB
            found[process, "drift"] = f"{size:,.0f} MiB are in use that its ledger does not explain"
        for key, replica in worker.replicas.items():
            if key not in desired.versions:
                found[process, str(key)] = _orphan(key)
            if replica.self_test:
                found[process, f"{key} {replica.self_test}"] = (
                    f"{key} answered otherwise than at its import and was loaded again: "
                    f"{replica.self_test}"
                )
    return found


def _orphan(key: VersionKey) -> str:
    return f"it holds {key}, which the registry does not know: it is released"
