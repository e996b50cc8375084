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
        for key in worker.replicas:
            if key not in desired.versions:
                found[process, str(key)] = _orphan(key)
    return found


def other_answers(workers: Iterable[WorkerInfo]) -> Mapping[Subject, tuple[VersionKey, str]]:
    """Versions that answered the picture that is kept with them otherwise than before, with a
    sentence.
    """
    return {
        (worker.incarnation, f"{key} {replica.self_test}"): (
            key,
            f"{key} answered otherwise than before and was loaded again: {replica.self_test}",
        )
        for worker in workers
        if worker.state is not WorkerState.LOST
        for key, replica in worker.replicas.items()
        if replica.self_test
    }


def _orphan(key: VersionKey) -> str:
    return f"it holds {key}, which the registry does not know: it is released"
