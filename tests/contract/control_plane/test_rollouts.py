"""Rollouts over real gRPC: what runs beside, what the leader makes of it, and who carries it on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from control_plane.caller import ANONYMOUS, Origin
from control_plane.rollout import rollout_controller, switch_controller
from control_plane.routing.poison import Image
from control_plane.routing.request_log import RequestRecord
from control_plane.types.policy import Gate, Validation
from control_plane.types.rollout.alias import Alias, AliasKey, point_of
from control_plane.types.rollout.progress import Outcome, Rollout
from control_plane.types.version import VersionKey
from tests.contract.control_plane.test_aliases import alias_of, promote, versions
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.client.async_client import AsyncClient
from yolopool.names import ModelRef
from yolopool.v1 import (
    events_pb2,
    rollouts_pb2,
    rollouts_pb2_grpc,
    types_pb2,
    worker_pb2,
)

# Wide, so that few samples show that a good candidate is within; a broken one is far beyond.
WIDE = rollouts_pb2.RolloutTolerance(
    errors=0.5, unmatched=0.5, looser=0.5, count=0.5, relabelled=0.5, confidence=0.5, scores=0.5
)
OUTCOMES = rollouts_pb2.RolloutOutcome


class Versions(ScriptedWorker):
    """Answers by version: `shift` moves the boxes of one, `failing` are those that fail."""

    def __init__(self, name: str, models: int = 3) -> None:
        super().__init__(name, models)
        self.shift: dict[int, float] = {}
        self.failing: set[int] = set()
        self.crashing: set[int] = set()
        self.crashed = 0
        self.slow: dict[int, float] = {}

    async def Infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        number = request.version.version
        if number in self.failing:
            raise errors.InferenceFailed("this graph fails: look at it")
        if number in self.crashing:
            self.crashed += 1
            raise errors.WorkerLost("the process ended: look at its log")
        reply = await super().Infer(request, context)
        del reply.result.detections[:]
        right = self.shift.get(number, 0.0)
        reply.result.detections.add(
            class_id=0,
            class_name="circle",
            confidence=0.8,
            box=types_pb2.Box(x_min=10 + right, y_min=10, x_max=60 + right, y_max=60),
        )
        reply.result.timing.inference_ms = 10.0 * self.slow.get(number, 1.0)
        reply.result.image_width = reply.result.image_height = 100
        return reply


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch_controller, "TICK_S", 0.05)
    monkeypatch.setattr(rollout_controller, "TICK_S", 0.05)


class Pool:
    """A control plane, one worker with two versions, and shapes:stable, which means the first."""

    def __init__(self, rig: Rig, worker: Versions, stub: Any) -> None:
        self.rig, self.worker, self.stub = rig, worker, stub

    async def start(self, candidate: int = 2, **plan: Any) -> Any:
        usual: dict[str, Any] = {
            "steps": [100, 1000],
            "shadow": 1000,
            "min_samples": 10,
            "min_s": 0.0,
            "tolerance": WIDE,
        }
        request = rollouts_pb2.StartRolloutRequest(
            alias="shapes:stable",
            candidate=candidate,
            plan=rollouts_pb2.RolloutPlan(**{**usual, **plan}),
        )
        return (await self.stub.StartRollout(request, timeout=5)).rollout

    async def show(self) -> Any:
        return await self.stub.GetRollout(
            rollouts_pb2.GetRolloutRequest(alias="shapes:stable"), timeout=5
        )

    @property
    def alias(self) -> Alias:
        return alias_of(self.rig)

    @property
    def rollout(self) -> Rollout:
        assert self.alias.rollout is not None
        return self.alias.rollout

    @property
    def means(self) -> dict[int, int]:
        return {target.version: target.weight for target in self.alias.targets}

    @property
    def gathered(self) -> Any:
        return self.rig.plane._services.rollouts._gathered

    @property
    def gathering(self) -> Any:
        return self.gathered.look(self.rollout.id)

    async def calls_until(self, done: Callable[[], bool], most: int = 800) -> set[int]:
        """Callers ask until something is so; answers the versions that answered them."""
        seen = set[int]()
        for _ in range(most):
            if done():
                return seen
            try:
                answer = await self.rig.detect("shapes:stable")
                seen.add(int(answer.version.version))
            except errors.InferenceFailed:
                pass
            await asyncio.sleep(0.002)
        raise AssertionError(f"{most} calls were not enough: {await self.show()}")


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with Rig(tmp_path) as rig:
        await versions(rig, 2)
        worker = Versions("w")
        await worker.start(rig.addresses.grpc)
        await promote(rig, 1)
        await rig.load("shapes:stable")
        async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
            yield Pool(rig, worker, rollouts_pb2_grpc.RolloutServiceStub(channel))
        await worker.die()


def settled(pool: Pool) -> Callable[[], bool]:
    return lambda: pool.rollout.settled


async def test_a_good_candidate_goes_through_all_steps(pool: Pool) -> None:
    begun = await pool.start()
    assert (begun.stable, begun.candidate, begun.running) == (1, 2, True)
    assert (await pool.start()).id == begun.id  # a repeat
    await pool.calls_until(lambda: pool.means == {1: 900, 2: 100})
    seen = await pool.calls_until(settled(pool))
    assert pool.rollout.outcome == Outcome.DONE
    assert pool.means == {2: 1000}
    assert seen == {1, 2}
    assert not pool.alias.shadow
    shown = (await pool.show()).rollout
    assert shown.outcome == OUTCOMES.ROLLOUT_OUTCOME_DONE
    assert len(shown.findings) == 10
    # One promotion, over which a rollback goes back.
    assert [(change.kind, change.by) for change in pool.alias.history[1:]] == [
        ("PROMOTE", f"rollout {begun.id}"),
        ("STEP", f"rollout {begun.id}"),
    ]
    assert [target.version for target in pool.alias.previous] == [1]
    assert not await pool.rig.registry.evidence.told(f"{begun.id}:0")


@pytest.mark.parametrize("steps", [[0], [100, 1000], [1000]])
async def test_a_broken_candidate_is_rolled_back_wherever_it_is(
    pool: Pool, steps: list[int]
) -> None:
    pool.worker.shift[2] = 7.0
    await pool.start(steps=steps)
    await pool.calls_until(settled(pool))
    assert pool.rollout.outcome == Outcome.ROLLED_BACK
    assert pool.rollout.reasons[0].startswith("shift: ")
    assert pool.means == {1: 1000}
    if steps != [0]:
        assert [change.kind for change in pool.alias.history] == ["SET", "PROMOTE", "ROLLBACK"]
        assert "shift" in pool.alias.history[-1].why
    found = await _events(pool.rig, kinds=[events_pb2.EVENT_KIND_ROLLOUT])
    assert [one.reason for one in found] == ["", "ROLLED_BACK"]
    assert "too far right" in found[-1].message
    assert found[-1].version.version == 2


async def test_in_shadow_callers_get_the_stable_version_whatever_the_other_does(
    pool: Pool,
) -> None:
    pool.worker.failing.add(2)
    await pool.start(steps=[0, 1000])
    seen = set[int]()
    for _ in range(800):
        answer = await pool.rig.detect("shapes:stable")  # raises nothing
        seen.add(answer.version.version)
        if pool.rollout.settled:
            break
        await asyncio.sleep(0.002)
    assert seen == {1}
    assert pool.rollout.outcome == Outcome.ROLLED_BACK
    assert pool.rollout.reasons[0].startswith("errors: ")
    beside = [one for one in pool.worker.inferred if one.request_id.endswith("/beside")]
    assert not beside  # it failed before it was noted
    assert pool.means == {1: 1000}
    # What only the comparison needed is let go.
    await becomes(lambda: "shapes@2" not in pool.worker.replicas)


async def test_what_runs_beside_is_bulk_and_nobody_s(pool: Pool) -> None:
    await pool.start(steps=[0], min_samples=100_000)
    await becomes(lambda: "shapes@2" in pool.worker.replicas)
    await pool.calls_until(lambda: any(_is_beside(one) for one in pool.worker.inferred))
    beside = next(one for one in pool.worker.inferred if _is_beside(one))
    assert beside.priority == types_pb2.PRIORITY_BULK
    assert beside.version.version == 2
    assert beside.tenant == ""
    own = {one.request_id for one in pool.worker.inferred if not _is_beside(one)}
    assert beside.request_id.removesuffix("/beside") in own


async def test_an_image_that_crashes_the_other_version_beside_is_known_to_the_quarantine(
    pool: Pool,
) -> None:
    quarantine = pool.rig.plane._services._beside._quarantine
    image = Image(VersionKey("shapes", 2), sha256(b"jpeg").hexdigest())
    pool.worker.crashing.add(2)
    await pool.start(steps=[0], min_samples=100_000)
    await pool.calls_until(lambda: quarantine._poison.is_suspect(image))
    # Once it is convicted, it is not run there again, and counts as a failure.
    quarantine._poison.quarantine(image, float("inf"))
    evidence = pool.gathering.evidence
    await asyncio.sleep(0.1)
    sent, failed = pool.worker.crashed, evidence.failed[1]
    await pool.calls_until(lambda: evidence.failed[1] >= failed + 3)
    assert pool.worker.crashed == sent


async def test_callers_by_a_family_count_for_the_rollout_of_its_member(pool: Pool) -> None:
    await pool.rig.ready("small")
    async with AsyncClient(pool.rig.addresses.grpc) as client:
        await client.set_family("site:any", ["small", "shapes:stable"])
        await pool.start(steps=[0], min_samples=100_000)
        await becomes(lambda: "shapes@2" in pool.worker.replicas)
    for _ in range(800):
        assert (await pool.rig.detect("site:any", sticky_key="c")).version.model == "shapes"
        if (own := pool.gathered.look(pool.rollout.id)) and own.evidence.images >= 3:
            break
        await asyncio.sleep(0.002)
    assert pool.gathering.evidence.images >= 3


async def test_callers_who_keep_to_a_version_are_compared_by_the_same_images_alone(
    pool: Pool,
) -> None:
    """A camera with large images, or with little time, would speak against its version."""
    await pool.start(steps=[500], shadow=1, min_samples=100_000)
    await becomes(lambda: pool.means == {1: 500, 2: 500})
    key = AliasKey("shapes", "stable")
    cameras = [f"camera-{number}" for number in range(8)]
    assert len({point_of(key, camera) < 500 for camera in cameras}) == 2
    pool.rig.plane._services._beside._rng = Random(1)
    for camera in cameras * 4:
        await pool.rig.detect("shapes:stable", sticky_key=camera)
    own = pool.gathered.look(pool.rollout.id)
    assert own is None or own.evidence.requests == own.evidence.images
    await pool.calls_until(lambda: pool.gathering.evidence.requests >= 3)  # without a key


async def test_a_deadline_that_a_caller_misses_is_not_the_version_s(pool: Pool) -> None:
    await pool.start(steps=[500], shadow=1, min_samples=100_000)
    await becomes(lambda: pool.means == {1: 500, 2: 500})
    beside = pool.rig.plane._services._beside
    record = RequestRecord("r", Origin(ANONYMOUS), "shapes:stable", 0.0)
    record.ref = ModelRef("shapes", alias="stable")
    for had_s, seen in ((0.1, 0), (60.0, 1)):
        for number in (1, 2):
            record.key = VersionKey("shapes", number)
            body = worker_pb2.InferRequest(encoded=b"jpeg")
            beside.failed(record, body, "DEADLINE_EXCEEDED", had_s, is_sticky=False)
        own = pool.gathered.look(pool.rollout.id)
        assert (own.evidence.requests if own is not None else 0) == seen


async def test_a_slow_candidate_is_seen_by_its_own_time(pool: Pool) -> None:
    pool.worker.slow[2] = 2.0
    await pool.start(steps=[0])
    await pool.calls_until(settled(pool))
    assert [one.partition(":")[0] for one in pool.rollout.reasons] == ["time"]


async def test_who_moves_the_alias_ends_the_rollout(pool: Pool) -> None:
    await versions_more(pool.rig)
    await pool.start(min_samples=100_000)
    await pool.calls_until(lambda: pool.means == {1: 900, 2: 100})
    await promote(pool.rig, 3)
    await becomes(settled(pool))
    assert pool.rollout.outcome == Outcome.ABORTED
    assert "moved the alias" in pool.rollout.reasons[0]
    assert pool.means == {3: 1000}  # as they ordered


async def test_an_abort_goes_back(pool: Pool) -> None:
    await pool.start(min_samples=100_000)
    await pool.calls_until(lambda: pool.means == {1: 900, 2: 100})
    asked = rollouts_pb2.AbortRolloutRequest(alias="shapes:stable", why="seen enough")
    ended = (await pool.stub.AbortRollout(asked, timeout=5)).rollout
    assert list(ended.reasons) == ["aborted by anonymous: seen enough"]
    await becomes(settled(pool))
    assert pool.means == {1: 1000}
    again = (await pool.stub.AbortRollout(asked, timeout=5)).rollout
    assert again.outcome == OUTCOMES.ROLLOUT_OUTCOME_ABORTED


async def test_an_abort_ends_a_switch_of_the_rollout_too(pool: Pool) -> None:
    pool.worker.may_load.clear()
    await pool.start(min_samples=100_000)
    await becomes(lambda: pool.alias.switch is not None)
    asked = rollouts_pb2.AbortRolloutRequest(alias="shapes:stable", why="seen enough")
    await pool.stub.AbortRollout(asked, timeout=5)
    await becomes(settled(pool))
    assert pool.alias.switch is None
    pool.worker.may_load.set()
    await becomes(lambda: "shapes@2" not in pool.worker.replicas)
    assert pool.means == {1: 1000}


async def test_a_candidate_that_can_not_be_loaded_ends_it(pool: Pool) -> None:
    pool.worker.refuse["shapes@2"] = errors.ModelTooLarge("it fits nothing: take a smaller one")
    await pool.start()
    await becomes(lambda: pool.rollout.settled, 20)
    assert pool.rollout.outcome == Outcome.ABORTED
    assert "can't take its share" in pool.rollout.reasons[0]
    assert pool.means == {1: 1000}


async def test_what_a_leader_left_at_any_arrow_is_gone_on_with(pool: Pool) -> None:
    """Each record that a crash between two writes leaves behind leads to where it should."""
    await pool.start(min_samples=100_000)
    await becomes(lambda: pool.means == {1: 900, 2: 100})
    registry = pool.rig.registry
    # The step was written, and the alias not moved yet.
    further = replace(pool.rollout, step=1)
    await registry.put_alias(replace(pool.alias, rollout=further), pool.alias.revision)
    await becomes(lambda: pool.means == {2: 1000})
    # The outcome was written, and the alias not moved back.
    ended = pool.rollout.ended(Outcome.ROLLED_BACK, ("shift: far",), 1.0)
    await registry.put_alias(replace(pool.alias, rollout=ended), pool.alias.revision)
    await becomes(lambda: pool.means == {1: 1000} and pool.rollout.settled)
    # It was moved back, and that was not written.
    unsettled = replace(pool.rollout, settled=False)
    await registry.put_alias(replace(pool.alias, rollout=unsettled), pool.alias.revision)
    await becomes(settled(pool))
    assert pool.rollout.reasons == ("shift: far",)


async def test_what_a_newer_release_made_of_a_rollout_stays(pool: Pool) -> None:
    await pool.start(min_samples=100_000)
    await becomes(lambda: pool.means == {1: 900, 2: 100})
    paused = replace(pool.rollout, outcome="PAUSED")
    await pool.rig.registry.put_alias(replace(pool.alias, rollout=paused), pool.alias.revision)
    await becomes(lambda: pool.rollout == paused)
    await asyncio.sleep(0.3)
    assert pool.rollout == paused
    assert pool.means == {1: 900, 2: 100}


async def test_evidence_of_every_control_plane_counts_also_of_one_that_ended(
    tmp_path: Path, pool: Pool
) -> None:
    await pool.start(steps=[0], min_samples=100_000)
    await pool.calls_until(lambda: bool(pool.rig.plane.view.replicas(VersionKey("shapes", 2))))
    async with Rig(tmp_path / "other", registry=pool.rig.registry) as other:
        await pool.worker.join(other.addresses.grpc)
        await becomes(lambda: len(other.plane.view.replicas(VersionKey("shapes", 2))) == 1)
        for _ in range(60):
            await other.detect("shapes:stable")
            await asyncio.sleep(0.005)
        topic = f"{pool.rollout.id}:0"
        await becomes(lambda: _count(pool.rig, topic) >= 1)
        await asyncio.sleep(0.3)
    before = (await pool.show()).requests
    assert before > 20


async def test_what_can_not_be_rolled_out(pool: Pool) -> None:
    stub = pool.stub
    shown = rollouts_pb2.GetRolloutRequest(alias="shapes:stable")
    assert isinstance(await refused(stub.GetRollout(shown, timeout=5)), errors.RolloutNotFound)
    cases: list[tuple[dict[str, Any], type[errors.YolopoolError]]] = [
        ({"candidate": 1}, errors.RolloutNotPossible),
        ({"candidate": 9}, errors.VersionNotFound),
        ({"candidate": 0}, errors.InvalidOption),
        ({"steps": [100, 10]}, errors.InvalidOption),
        ({"steps": [2000]}, errors.InvalidOption),
        ({"shadow": 1001}, errors.InvalidOption),
        ({"min_s": float("nan")}, errors.InvalidOption),
        ({"false_alarms": 0.9}, errors.InvalidOption),
        ({"tolerance": rollouts_pb2.RolloutTolerance(lost=1.0)}, errors.InvalidOption),
    ]
    for given, expected in cases:
        assert isinstance(await refused(pool.start(**given)), expected), given
    unknown = rollouts_pb2.StartRolloutRequest(alias="shapes:none", candidate=2)
    assert isinstance(await refused(stub.StartRollout(unknown, timeout=5)), errors.AliasNotFound)
    bare = rollouts_pb2.StartRolloutRequest(alias="shapes", candidate=2)
    error = await refused(stub.StartRollout(bare, timeout=5))
    assert isinstance(error, errors.InvalidModelReference)
    await versions_more(pool.rig)
    await pool.start(min_samples=100_000)
    assert isinstance(await refused(pool.start(3)), errors.RolloutNotPossible)
    listed = await stub.ListRollouts(rollouts_pb2.ListRolloutsRequest(), timeout=5)
    assert [one.alias for one in listed.rollouts] == ["shapes:stable"]
    none = rollouts_pb2.ListRolloutsRequest(name_prefix="other")
    assert not (await stub.ListRollouts(none, timeout=5)).rollouts


async def test_a_candidate_that_fails_the_gate_of_its_model_only_runs_beside(pool: Pool) -> None:
    registry, gate = pool.rig.registry, Gate("0" * 64, min_map50=0.5)
    await pool.start(steps=[0, 1000])
    await registry.note_validation(VersionKey("shapes", 2), Validation(gate.data, 1.0, map50=0.1))
    await registry.change_rule("shapes", lambda rule: replace(rule, gate=gate))
    await pool.calls_until(settled(pool))
    assert pool.rollout.outcome == Outcome.ABORTED
    assert "mAP50 0.1000" in pool.rollout.reasons[0]
    assert pool.means == {1: 1000}
    assert isinstance(await refused(pool.start()), errors.ValidationFailed)
    assert (await pool.start(steps=[0])).running


async def test_a_candidate_that_is_deleted_ends_it(pool: Pool) -> None:
    await pool.start(steps=[0], min_samples=100_000)
    # As an operator of an earlier release may, who knows nothing of rollouts.
    registry, candidate = pool.rig.registry, VersionKey("shapes", 2)
    with pytest.raises(errors.ModelReferenced):
        await registry.delete([candidate])
    await registry.write(lambda tx: tx.drop_version(candidate))
    await becomes(settled(pool))
    assert pool.rollout.outcome == Outcome.ABORTED
    assert pool.rollout.reasons == ("shapes@2 was deleted",)
    assert pool.means == {1: 1000}


async def test_images_are_kept_where_that_was_allowed(pool: Pool) -> None:
    pool.worker.shift[2] = 2.0
    tolerance = rollouts_pb2.RolloutTolerance(shift_px=9.0)
    await pool.start(steps=[0], min_samples=100_000, keep_images=True, tolerance=tolerance)
    asked = rollouts_pb2.GetDisagreementsRequest(alias="shapes:stable")

    async def kept() -> Any:
        return (await pool.stub.GetDisagreements(asked, timeout=5)).disagreements

    await pool.calls_until(lambda: bool((own := pool.gathering) and own.images))
    (first, *_) = await kept()
    assert first.encoded
    assert first.stable.detections[0].box.x_min == 10
    assert first.candidate.detections[0].box.x_min == 12


async def versions_more(rig: Rig) -> None:
    await rig.register("shapes", b"weights 9")
    await rig.import_next()


def _is_beside(request: worker_pb2.InferRequest) -> bool:
    return request.request_id.endswith("/beside")


def _count(rig: Rig, topic: str) -> int:
    texts: Any = rig.registry.evidence
    return len(texts._texts.get(topic, (0.0, {}))[1])


async def _events(rig: Rig, **asked: Any) -> list[Any]:
    """What is stored by now; the recorder writes beside."""
    await asyncio.sleep(0.2)
    call = rig.events.WatchEvents(events_pb2.WatchEventsRequest(**asked), timeout=5)
    return [event async for event in call]
