"""What a worker reports that desired state or its own ledger does not explain. Pure.

Nothing is decided here: what nobody knows is released by plans, and a budget follows what others
use. It is told, since someone may have to look after it.
"""

from collections.abc import Iterable, Mapping

from control_plane.types.desired import Desired
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo, WorkerState

# Of a worker's budget; less comes and goes.
WORTH_TELLING = 0.05
MIB = 2**20

# Of what process, and what of it.
Subject = tuple[str, str]


def discrepancies(workers: Iterable[WorkerInfo], desired: Desired) -> Mapping[Subject, str]:
    """Sentences for people, by what they are about: a subject stays the same while it lasts."""
    found: dict[Subject, str] = {}
    for worker in workers:
        if worker.state is WorkerState.LOST:
            continue
        ledger, process = worker.ledger, worker.incarnation
        least = WORTH_TELLING * (ledger.budget_bytes + ledger.foreign_bytes)
        if ledger.foreign_bytes > least:
            size = ledger.foreign_bytes / MIB
            found[process, "foreign"] = (
                f"other processes use {size:,.0f} MiB of its device: its budget is less by that"
            )
        if ledger.drift_bytes > least:
            size = ledger.drift_bytes / MIB
            found[process, "drift"] = f"{size:,.0f} MiB are in use that its ledger does not explain"
        for key in worker.replicas:
            if key not in desired.versions:
                found[process, str(key)] = _orphan(key)
    return found


def _orphan(key: VersionKey) -> str:
    return f"it holds {key}, which the registry does not know: it is released"
