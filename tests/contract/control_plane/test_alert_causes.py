"""Every alert fires by its cause in a pool that has it, and ends with it; none in a pool that is
well.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.alerts.table import BY_NAME, RULES
from control_plane.types.lease import FencingToken
from tests.contract.alert_rig import alert_rig, alerts, ends, fires
from tests.contract.control_plane.test_aliases import promote, versions
from tests.contract.control_plane.test_rollouts import Pool, Versions, settled
from tests.contract.control_plane.test_survival import fatal, tell
from tests.contract.control_plane_rig import Rig, ScriptedWorker
from tests.contract.worker.test_worker import IMAGE, OTHER
from tests.waiting import becomes
from yolopool import errors
from yolopool.server import logs
from yolopool.server.log_writer import DirectLog, LogOutput
from yolopool.v1 import rollouts_pb2_grpc

Cause = Callable[["Pooled"], Awaitable[Callable[[], Awaitable[None]] | None]]


class Pooled:
    """A control plane with one worker that holds the version shapes@1, and callers."""

    def __init__(self, rig: Rig, worker: ScriptedWorker, folder: Path) -> None:
        self.rig, self.worker, self.folder = rig, worker, folder
        self.stack = contextlib.AsyncExitStack()
        self._callers: set[asyncio.Task[None]] = set()

    def calls(self, model: str = "shapes", every_s: float = 0.01, **more: Any) -> None:
        """Callers from now on."""
        task = asyncio.create_task(self._call(model, every_s, more))
        self._callers.add(task)

    def turns(self, *models: str) -> None:
        """Callers who ask all for one model, then all for the next, from now on."""
        self._callers.add(asyncio.create_task(self._take_turns(models)))

    async def _take_turns(self, models: Sequence[str]) -> None:
        while True:
            for model in models:
                asked = (self.rig.detect(model) for _ in range(8))
                await asyncio.gather(*asked, return_exceptions=True)

    async def leave(self) -> None:
        for task in self._callers:
            task.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        self._callers.clear()

    async def _call(self, model: str, every_s: float, more: dict[str, Any]) -> None:
        while True:
            with contextlib.suppress(grpc.RpcError):
                await self.rig.detect(model, **more)
            await asyncio.sleep(every_s)


@contextlib.asynccontextmanager
async def pooled(folder: Path, **more: Any) -> AsyncIterator[Pooled]:
    async with alert_rig(folder, **more) as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes")
        await rig.load("shapes")
        pool = Pooled(rig, worker, folder)
        try:
            yield pool
        finally:
            await pool.leave()
            await pool.stack.aclose()


CAUSES: dict[str, Cause] = {}


def cause(*names: str) -> Callable[[Cause], Cause]:
    def note(made: Cause) -> Cause:
        CAUSES.update(dict.fromkeys(names, made))
        return made

    return note


@cause("YolopoolInferenceSlow")
async def slow_passes(pool: Pooled) -> Any:
    pool.worker.found.timing.inference_ms = 150.0
    pool.calls()

    async def mend() -> None:
        pool.worker.found.timing.inference_ms = 5.0

    return mend


@cause("YolopoolDeviceMemory")
async def full_device(pool: Pooled) -> Any:
    pool.worker.terms["measured_bytes"] = 195

    async def mend() -> None:
        pool.worker.terms["measured_bytes"] = 100

    return mend


@cause("YolopoolMemoryDrift")
async def leak(pool: Pooled) -> Any:
    pool.worker.terms["drift_bytes"] = 30

    async def mend() -> None:
        pool.worker.terms.clear()

    return mend


@cause("YolopoolQueueLong")
async def long_queue(pool: Pooled) -> Any:
    pool.worker.waiting = 11

    async def mend() -> None:
        pool.worker.waiting = 1

    return mend


@cause("YolopoolControlPlaneDown")
async def dead_control_plane(pool: Pooled) -> Any:
    other = alert_rig(pool.folder / "other", pool.rig.registry)
    await pool.stack.enter_async_context(other)
    await becomes(lambda: len(pool.rig.plane._alerting.controller._history.planes) == 2)
    loop = next(task for task in other.plane._tasks if task.get_name() == "alerts")
    loop.cancel()  # it says no goodbye


@cause("YolopoolNoWorker", "YolopoolWorkerLost")
async def lost_worker(pool: Pooled) -> Any:
    await pool.worker.die()


def failing(error: errors.YolopoolError) -> Cause:
    async def fails(pool: Pooled) -> Any:
        pool.worker.on_infer = error
        pool.calls()

        async def mend() -> None:
            pool.worker.on_infer = None

        return mend

    return fails


cause("YolopoolDetectFails", "YolopoolModelFails")(failing(errors.InferenceFailed("no")))
cause("YolopoolTooLate", "YolopoolModelLate")(failing(errors.DeadlineUnmeetable("no")))
cause("YolopoolQueuesFull")(failing(errors.QueueFull("64 wait")))
cause("YolopoolAnswersNotFinite")(failing(errors.AnswerNotFinite("NaN")))


@cause("YolopoolRetries")
async def one_of_two_refuses(pool: Pooled) -> Any:
    await pool.rig.worker("w2")
    await pool.rig.load("shapes", replicas=2)
    return await failing(errors.QueueFull("64 wait"))(pool)


@cause("YolopoolBlind")
async def nothing_found(pool: Pooled) -> Any:
    pool.calls(every_s=0.0)
    await asyncio.sleep(0.1)
    (seen := type(pool.worker.found)()).CopyFrom(pool.worker.found)
    del pool.worker.found.detections[:]
    for _ in range(7):
        pool.calls(every_s=0.0)

    async def mend() -> None:
        pool.worker.found.CopyFrom(seen)

    return mend


@cause("YolopoolProbeFails")
async def another_answer(pool: Pooled) -> Any:
    for replica in pool.worker.replicas.values():
        replica.self_test = "rows differ by 0.3 in the mean from those at the import"


async def stranger_leads(registry: Any, lease_s: float) -> FencingToken:
    """One that says nothing holds the lease."""
    held = await registry.leader()
    if held is not None:
        await registry.drop_lease(held.token)
    token: FencingToken | None = await registry.take_lease("stranger", lease_s, None)
    assert token is not None
    return token


@cause("YolopoolNoLeader")
async def nobody_acts(pool: Pooled) -> Any:
    registry: Any = pool.rig.registry
    token = await stranger_leads(registry, 60.0)

    async def mend() -> None:
        await registry.drop_lease(token)

    return mend


@cause("YolopoolLeaseFlaps")
async def flapping(pool: Pooled) -> Any:
    registry: Any = pool.rig.registry
    election = pool.rig.plane._election
    for _ in range(4):
        token = await stranger_leads(registry, 60.0)
        await becomes(lambda: not election.is_leader)
        await registry.drop_lease(token)
        await becomes(lambda: election.is_leader)
        await asyncio.sleep(0.1)


@cause("YolopoolViewsDiffer")
async def half_connected(pool: Pooled) -> Any:
    other = alert_rig(pool.folder / "other", pool.rig.registry)
    await pool.stack.enter_async_context(other)

    async def mend() -> None:
        await pool.worker.join(other.addresses.grpc)

    return mend


@cause("YolopoolCrashLoop")
async def crash_loop(pool: Pooled) -> Any:
    never = ScriptedWorker("never")
    for count in (1, 2, 3):
        await tell(pool.rig, never, in_a_row=count)

    async def mend() -> None:
        await never.start(pool.rig.addresses.grpc)
        pool.stack.push_async_callback(never.die)

    return mend


@cause("YolopoolWorkersCrash")
async def crashes(pool: Pooled) -> Any:
    for name in ("a", "b", "c"):
        await tell(pool.rig, ScriptedWorker(name))


@cause("YolopoolQuarantine")
async def poison(pool: Pooled) -> Any:
    workers = [await fatal(pool.rig, name) for name in ("one", "two", "three")]
    for worker in workers:
        pool.stack.push_async_callback(worker.die)
    await pool.rig.load("shapes", replicas=4)
    await pool.worker.leave()
    await pool.rig.detect("shapes", encoded=IMAGE)
    with contextlib.suppress(grpc.RpcError):
        await pool.rig.detect("shapes", encoded=OTHER)


@cause("YolopoolLoadsFail")
async def failing_loads(pool: Pooled) -> Any:
    pool.worker.on_assign = errors.LoadFailed("no such kernel")
    await pool.rig.ready("a", "b", "c", "d", "e")
    for name in "abcde":
        with contextlib.suppress(grpc.RpcError):
            await pool.rig.load(name, timeout=0.2)


@cause("YolopoolColdStarts", "YolopoolThrashing")
async def more_than_fit(pool: Pooled) -> Any:
    pool.worker.budget = 100
    await pool.rig.ready("rings")
    pool.turns("rings", "shapes")

    async def mend() -> None:
        await pool.leave()
        pool.worker.budget = 300
        pool.calls("shapes")

    return mend


@cause("YolopoolRolledBack")
async def bad_candidate(pool: Pooled) -> Any:
    rig = pool.rig
    await pool.worker.leave()
    await versions(rig, 2)
    worker = Versions("v")
    await worker.start(rig.addresses.grpc)
    pool.stack.push_async_callback(worker.die)
    await promote(rig, 2)
    await rig.load("shapes:stable")
    worker.shift[3] = 7.0
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        rollout = Pool(rig, worker, rollouts_pb2_grpc.RolloutServiceStub(channel))
        await rollout.start(candidate=3, steps=[1000])
        await rollout.calls_until(settled(rollout))


@cause("YolopoolLogLinesDropped")
async def no_room_for_logs(pool: Pooled) -> Any:
    dropped = logs.dropped_lines()
    descriptor = os.open("/dev/full", os.O_WRONLY)
    pool.stack.callback(os.close, descriptor)
    stream = DirectLog(LogOutput(descriptor))
    logs._streams.append(stream)  # for good: what was dropped stays dropped
    stream.write("a line\n")
    assert logs.dropped_lines() > dropped


@cause("YolopoolCertificateExpires")
async def short_certificate(pool: Pooled) -> Any:
    pool.rig.plane._metrics.watch_certificate(lambda: time.time() + 3600)


SEEN_BY_PROMETHEUS_ALONE = {"YolopoolTwoLeaders"}
# Its cause needs a Redis: test_alerts.
ELSEWHERE = {"YolopoolRegistryAway"}


def test_each_alert_has_a_cause() -> None:
    assert CAUSES.keys() == BY_NAME.keys() - SEEN_BY_PROMETHEUS_ALONE - ELSEWHERE
    assert {rule.name for rule in RULES if not rule.built_in} == SEEN_BY_PROMETHEUS_ALONE


@pytest.mark.matrix(sample=2, of="causes of alerts")
@pytest.mark.parametrize("rule", sorted(CAUSES))
async def test_it_fires_by_its_cause_and_ends_with_it(rule: str, tmp_path: Path) -> None:
    # The lead changes four times within the three seconds that the rule looks back.
    more = {"reconciler_lease_s": 0.3} if rule == "YolopoolLeaseFlaps" else {}
    async with pooled(tmp_path, **more) as pool:
        mend = await CAUSES[rule](pool)
        alert = await fires(pool.rig, rule)
        assert alert.summary
        assert BY_NAME[rule].about == "" or alert.subject
        if mend is not None:
            await mend()
            await ends(pool.rig, rule)


async def test_none_fires_in_a_pool_that_is_well(tmp_path: Path) -> None:
    async with pooled(tmp_path) as pool, alert_rig(tmp_path / "other", pool.rig.registry) as other:
        await pool.worker.join(other.addresses.grpc)
        pool.worker.terms["measured_bytes"] = 120
        pool.calls()
        pool.calls(every_s=0.02)
        await asyncio.sleep(3.5)  # as long as the longest rule waits
        history = pool.rig.plane._alerting.controller._history
        assert history.latest("yolopool_model_empty_in_row", lambda _: True)
        assert await alerts(pool.rig) == []
        assert await alerts(other) == []
