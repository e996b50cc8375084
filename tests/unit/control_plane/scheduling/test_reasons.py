"""Reasons of blocked wants: their codes are errors of the API, and each says what to do."""

import pytest

from control_plane.scheduling import reasons
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.command import Blocked
from control_plane.types.footprint import Footprint
from control_plane.types.policy import Placement
from control_plane.types.snapshot import LoadFailure
from control_plane.types.version import ServedBuild, ServingSpec, VersionState
from tests.unit.control_plane.fleets import NOW, key, version, worker

A = key("a")
WORKER = ProposedWorker(worker("w1", 100), {})
BROKEN = LoadFailure("OUT_OF_MEMORY", "no memory", NOW + 4)
FULL = LoadFailure("LEDGER_FULL", "not now", NOW + 1)


@pytest.mark.parametrize(
    ("blocked", "reason", "final", "says"),
    [
        (reasons.not_ready(A, version("a", state=VersionState.IMPORTING)),
         "MODEL_NOT_READY", False, "wait for its import"),
        (reasons.not_ready(A, version("a", state=VersionState.FAILED)),
         "MODEL_IMPORT_FAILED", True, "the import of a@1 failed"),
        (reasons.no_worker(A), "NO_WORKER", False, "start one"),
        (reasons.too_few_workers(A, 3, 2), "NO_WORKER", False, "3 replicas are wanted and 2"),
        (reasons.only_cpus(A), "NO_WORKER", False, "cpu_fallback"),
        (reasons.no_eligible_worker(A, ServingSpec(placement=Placement(pool="night"))),
         "NO_WORKER", False, "pool=night"),
        (reasons.no_eligible_worker(A, ServingSpec()), "NO_WORKER", False, "start another"),
        (reasons.no_eligible_worker(
            A, ServingSpec(build_of=A, served={"cpu": ServedBuild("torch", "bf16")})),
         "NO_WORKER", False, "it is a build for cpu"),
        (reasons.too_large(A, [WORKER], {"w1": Footprint(2**21, 0)}),
         "MODEL_TOO_LARGE", True, "needs 2.0 MiB and the largest worker, w1"),
        (reasons.load_failed(A, [(BROKEN, "w1")], NOW), "LOAD_FAILED", True, "no memory"),
        # One worker that may take it later: no caller gets LOAD_FAILED yet.
        (reasons.load_failed(A, [(BROKEN, "w1"), (FULL, "w2")], NOW),
         "LEDGER_FULL", False, "w2: not now"),
        (reasons.room_is_being_freed(A), "LEDGER_FULL", False, "has left"),
        (reasons.in_use(A), "LEDGER_FULL", False, "in use"),
        (reasons.pinned_full(A), "LEDGER_FULL", True, "unpin"),
    ],
)  # fmt: skip
def test_each_reason(blocked: Blocked, reason: str, final: bool, says: str) -> None:
    assert (blocked.key, blocked.reason, blocked.final) == (A, reason, final)
    assert says in blocked.why
    assert blocked.as_error().reason == reason


def test_the_first_retry_is_told() -> None:
    both = [(BROKEN, "w1"), (LoadFailure("OUT_OF_MEMORY", "no", NOW + 2), "w2")]
    assert reasons.load_failed(A, both, NOW).retry_after_s == 2.0
    assert reasons.load_failed(A, both, NOW + 9).retry_after_s == 0.0
