"""When one Detect is retried on another worker, and what its caller gets in the end."""

from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest

from control_plane.caller import ANONYMOUS, Origin
from control_plane.metrics.exposition import Metrics
from control_plane.routing.attempts import Attempt
from control_plane.routing.detect_call import MAX_STALE_CHOICES, DetectCall, DetectContext
from control_plane.routing.request_log import RequestRecord
from control_plane.tenants.admission import Admission
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from tests.unit.control_plane.fleets import NOW, key, replica, worker
from yolopool import errors
from yolopool.server.clock import Clock
from yolopool.v1 import worker_pb2

DEADLINE_S = NOW + 0.5


class Workers:
    """Stands in for all workers: the n-th attempt raises the n-th failure, then one is answered."""

    def __init__(self, *failures: errors.YolopoolError) -> None:
        self._failures = list(failures)
        self.attempts: list[Attempt] = []

    async def infer(
        self, attempt: Attempt, body: worker_pb2.InferRequest
    ) -> worker_pb2.InferResponse:
        self.attempts.append(attempt)
        if self._failures:
            raise self._failures.pop(0)
        return worker_pb2.InferResponse(ledger_used_bytes=7)


class Loader:
    """Loads nothing in time; where the version is on a worker again, that is answered."""

    def __init__(self, load: Callable[[], None]) -> None:
        self._load = load
        self.misses = 0

    async def ensure_loaded(
        self, key: VersionKey, ready: Callable[[], Any], deadline_s: float
    ) -> Any:
        self.misses += 1
        self._load()
        found = ready()
        if found is None:
            raise errors.DeadlineExceeded("time ran out while a@1 was being loaded")
        return found


class Quarantine:
    """`allows`: whether a request may go on after a worker ended with it."""

    def __init__(self) -> None:
        self.allows = True
        self.lost: list[tuple[str, int]] = []

    async def may_go_on(
        self, body: worker_pb2.InferRequest, incarnation: str, lost: int, deadline_s: float
    ) -> bool:
        self.lost.append((incarnation, lost))
        return self.allows


class Rig:
    """One call of version a over workers that have it; `loads`: whether a load brings it back."""

    def __init__(
        self,
        *names: str,
        failures: tuple[errors.YolopoolError, ...] = (),
        loads: bool = False,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        clock = Clock(lambda: NOW, lambda: 1e9)
        self.view = View(clock)
        self._names = names
        self.join()
        self.workers = Workers(*failures)
        self.loader = Loader(self.join if loads else lambda: None)
        self.quarantine = Quarantine()
        self.record = RequestRecord("r", Origin(ANONYMOUS), "a", NOW)
        context = DetectContext(
            self.view,
            cast(Any, self.workers),
            cast(Any, self.loader),
            cast(Any, self.quarantine),
            Metrics(),
            clock,
            Random(1),
            Admission(self.view, clock),
        )
        body = worker_pb2.InferRequest(encoded=b"image")
        self.call = DetectCall(context, self.record, key("a"), body, deadline_s)

    def join(self) -> None:
        for name in self._names:
            self.view.join(worker(name, replicas=[replica("a")]), None)

    @property
    def asked(self) -> list[str]:
        return [attempt.worker.id for attempt in self.workers.attempts]


def not_assigned(**details: str) -> errors.NotAssigned:
    return errors.NotAssigned("a@1 is not here", details=details)


async def test_a_hit_takes_one_attempt() -> None:
    rig = Rig("w1")
    await rig.call.run()
    assert rig.record.hit
    assert rig.record.worker == "w1"
    assert rig.record.ledger_used_bytes == 7
    assert rig.record.facts is None  # as of a worker of an earlier release
    assert (rig.asked, rig.loader.misses, rig.record.retried) == (["w1"], 0, [])


async def test_a_miss_waits_for_a_load() -> None:
    rig = Rig("w1", loads=True)
    rig.view.leave("w1", "w1-1")
    await rig.call.run()
    assert not rig.record.hit
    assert (rig.asked, rig.loader.misses) == (["w1"], 1)


@pytest.mark.parametrize(
    "failure",
    [
        errors.WorkerSilent("silent"),
        errors.Draining("drains"),
        errors.QueueFull("full"),
        errors.DeadlineUnmeetable("late"),
    ],
)
async def test_a_worker_that_can_not_answer_costs_one_retry(failure: errors.YolopoolError) -> None:
    rig = Rig("w1", "w2", failures=(failure,))
    await rig.call.run()
    first, second = rig.asked
    assert {first, second} == {"w1", "w2"}
    assert rig.record.retried == [f"{first}: {failure.reason}"]


async def test_there_is_no_second_retry() -> None:
    rig = Rig("w1", "w2", "w3", failures=(errors.Draining("one"), errors.Draining("two")))
    with pytest.raises(errors.Draining, match="two"):
        await rig.call.run()
    assert len(rig.asked) == 2


async def test_a_busy_worker_is_not_left_where_there_is_no_other() -> None:
    rig = Rig("w1", failures=(errors.QueueFull("full"),))
    with pytest.raises(errors.QueueFull):
        await rig.call.run()
    assert (rig.asked, rig.loader.misses) == (["w1"], 0)


async def test_an_error_of_the_request_is_not_retried() -> None:
    rig = Rig("w1", "w2", failures=(errors.ImageEmpty("no bytes"),))
    with pytest.raises(errors.ImageEmpty):
        await rig.call.run()
    assert len(rig.asked) == 1


async def test_only_the_first_attempt_has_a_limit_of_its_own() -> None:
    rig = Rig("w1", "w2", failures=(errors.WorkerSilent("silent"),), deadline_s=NOW + 60)
    await rig.call.run()
    first, second = rig.workers.attempts
    assert first.limit_s is not None
    assert second.limit_s is None


async def test_the_quarantine_says_whether_a_request_that_lost_a_worker_goes_on() -> None:
    rig = Rig("w1", "w2", "w3", failures=(errors.WorkerLost("one"), errors.WorkerLost("two")))
    await rig.call.run()
    first, second, _ = rig.asked
    assert rig.quarantine.lost == [(f"{first}-1", 1), (f"{second}-1", 2)]
    rig = Rig("w1", "w2", failures=(errors.WorkerLost("one"),))
    rig.quarantine.allows = False
    with pytest.raises(errors.WorkerLost):
        await rig.call.run()


async def test_a_stale_choice_is_made_again_a_few_times() -> None:
    stale = [not_assigned() for _ in range(MAX_STALE_CHOICES + 1)]
    rig = Rig("w1", failures=tuple(stale), loads=True)
    with pytest.raises(errors.NotAssigned):
        await rig.call.run()
    assert rig.asked == ["w1"] * (MAX_STALE_CHOICES + 1)
    assert rig.loader.misses == MAX_STALE_CHOICES  # the view has no replica after each refusal


async def test_a_version_unloaded_by_force_is_not_loaded_again() -> None:
    rig = Rig("w1", "w2", failures=(not_assigned(forced="1"),))
    with pytest.raises(errors.NotAssigned):
        await rig.call.run()
    assert (len(rig.asked), rig.loader.misses) == (1, 0)


async def test_a_deadline_after_a_retry_names_what_was_tried() -> None:
    rig = Rig("w1", failures=(errors.Draining("drains"),))
    with pytest.raises(errors.DeadlineExceeded, match=r"being loaded \(before: w1: DRAINING\)"):
        await rig.call.run()


async def test_no_attempt_begins_at_the_deadline() -> None:
    rig = Rig("w1", deadline_s=NOW)
    with pytest.raises(errors.DeadlineExceeded, match="time ran out before a@1 could be run"):
        await rig.call.run()
    assert rig.asked == []


async def test_a_worker_with_a_tripped_breaker_is_asked_only_if_there_is_no_other() -> None:
    rig = Rig("w1", "w2")
    rig.view.breaker.trip("w1-1", NOW)
    await rig.call.run()
    assert rig.asked == ["w2"]
    rig = Rig("w1")
    rig.view.breaker.trip("w1-1", NOW)
    await rig.call.run()
    assert rig.asked == ["w1"]
