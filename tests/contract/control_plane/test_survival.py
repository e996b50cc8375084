"""A worker that hangs, callers who leave, and images that end workers, over real gRPC."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest

from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.contract.worker.test_worker import IMAGE, OTHER, Running
from tests.models import Zoo
from tests.waiting import becomes
from worker.app import App
from worker.backends.simulated import SimulatedBackend, TimeCurve
from worker.process.exit_status import HUNG
from worker.settings import read_settings
from yolopool import errors
from yolopool.v1 import (
    detection_pb2,
    events_pb2,
    fleet_pb2,
    membership_pb2,
    types_pb2,
    worker_pb2,
)

BYTES = 8 * 1024**3


class Stuck:
    """A simulated device whose passes do not end, once told so."""

    def __init__(self, **curve: float) -> None:
        self.hangs = False
        self.free = threading.Event()
        self.backend = SimulatedBackend(0, BYTES, TimeCurve(**curve), fail=self._step)

    def _step(self, step: str) -> None:
        if step == "run" and self.hangs:
            self.free.wait(30)


class Watched(Running):
    """A worker under its watchdog, which notes the exit status instead of ending the tests."""

    def __init__(self, app: App, channel: grpc.aio.Channel) -> None:
        super().__init__(app, channel)
        self.died: list[int] = []

    def watch(self) -> None:
        self.app.watch(self.died.append)


@pytest.fixture
async def stuck(tmp_path: Path, zoo: Zoo) -> AsyncIterator[tuple[Stuck, Watched]]:
    device = Stuck()
    flags = ["--device=sim:0", f"--data-dir={tmp_path}", "--control-planes=127.0.0.1:1"]
    app = App(read_settings([*flags, "--hang-floor-s=1", "--max-batch=1"]), device.backend)
    await app.start()
    async with grpc.aio.insecure_channel(app.identity().address) as channel:
        worker = Watched(app, channel)
        await worker.assign(zoo)
        await worker.infer()  # measured
        worker.watch()
        yield device, worker
    device.free.set()
    await app.stop()


async def test_a_hung_pass_is_told_to_all_who_wait_and_ends_the_process(
    stuck: tuple[Stuck, Watched],
) -> None:
    device, worker = stuck
    device.hangs = True
    calls = [asyncio.ensure_future(worker.infer(request_id=f"r{n}")) for n in range(4)]
    for call in calls:
        with pytest.raises(errors.DeviceHung, match="a pass of shapes@1 has run for"):
            await call
    assert (await worker.inventory()).state == fleet_pb2.WORKER_STATE_HUNG
    with pytest.raises(errors.DeviceHung):
        await worker.infer()
    await becomes(lambda: worker.died == [HUNG])


async def test_a_pass_that_takes_longer_than_ever_but_ends_is_no_hang(
    stuck: tuple[Stuck, Watched],
) -> None:
    device, worker = stuck
    device.hangs = True
    call = asyncio.ensure_future(worker.infer())
    await asyncio.sleep(0.1)
    device.free.set()
    await call
    assert not worker.died


async def test_a_blocked_event_loop_ends_the_process(stuck: tuple[Stuck, Watched]) -> None:
    _, worker = stuck
    threading.Event().wait(2.5)
    await becomes(lambda: worker.died == [HUNG])


async def test_a_caller_who_leaves_frees_his_place_in_queue_and_decode(
    stuck: tuple[Stuck, Watched],
) -> None:
    device, worker = stuck
    device.hangs = True
    first = asyncio.ensure_future(worker.infer())
    await becomes(lambda: worker.app.engine.load().outstanding == 1)
    waiting = [asyncio.ensure_future(worker.infer()) for _ in range(5)]
    await becomes(lambda: worker.app.engine.load().outstanding == 6)
    for call in waiting:
        call.cancel()
    await becomes(lambda: worker.app.engine.load().outstanding == 1)
    await becomes(lambda: worker.app.handler.in_flight == 1)
    device.free.set()
    await first


async def test_what_is_left_after_the_grace_is_refused_and_not_cut(
    tmp_path: Path, zoo: Zoo
) -> None:
    device = Stuck()
    flags = ["--device=sim:0", f"--data-dir={tmp_path}", "--control-planes=127.0.0.1:1"]
    app = App(read_settings([*flags, "--drain-grace-s=30"]), device.backend)
    await app.start()
    async with grpc.aio.insecure_channel(app.identity().address) as channel:
        worker = Running(app, channel)
        await worker.assign(zoo)
        device.hangs = True
        call = asyncio.ensure_future(worker.infer())
        await becomes(lambda: worker.app.handler.in_flight == 1)
        once, again = asyncio.Event(), asyncio.Event()
        running = asyncio.ensure_future(app.run(once.wait, hurry=again.wait))
        once.set()
        await becomes(lambda: app.handler.state == fleet_pb2.WORKER_STATE_DRAINING)
        assert not call.done()
        again.set()  # the second signal
        with pytest.raises(errors.Draining, match="before its turn"):
            await call
        device.free.set()
        await running


async def test_suspects_run_alone_and_one_at_a_time(tmp_path: Path, zoo: Zoo) -> None:
    backend = SimulatedBackend(0, BYTES, TimeCurve(fixed_s=0.05))
    flags = ["--device=sim:0", f"--data-dir={tmp_path}", "--control-planes=127.0.0.1:1"]
    app = App(read_settings(flags), backend)
    await app.start()
    async with grpc.aio.insecure_channel(app.identity().address) as channel:
        worker = Running(app, channel)
        await worker.assign(zoo)
        images = (IMAGE, OTHER) * 4
        plain = [worker.infer(image=image) for image in images]
        suspects = [worker.infer(image=image, suspect=True) for image in images[:3]]
        answers = await asyncio.gather(*plain, *suspects)
    await app.stop()
    assert max(one.result.batch_size for one in answers[:8]) > 1
    assert {one.result.batch_size for one in answers[8:]} == {1}


async def test_a_cancelled_detect_is_cancelled_at_its_worker(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        worker = await rig.worker("one")
        await rig.ready("shapes")
        await rig.load("shapes")
        worker.infer_s = 10.0
        call = rig.detection.Detect(
            detection_pb2.DetectRequest(model="shapes", encoded=IMAGE), timeout=20
        )
        running = asyncio.ensure_future(call)
        await becomes(lambda: bool(worker.inferred))
        call.cancel()
        await becomes(lambda: worker.cancelled == 1)
        await becomes(lambda: not rig.plane.view.outstanding)
        with pytest.raises(asyncio.CancelledError):
            await running


# --- exits, as supervisors tell of them --------------------------------------------------------


async def tell(
    rig: Rig,
    worker: ScriptedWorker,
    *requests: str,
    in_a_row: int = 1,
    restart_in_s: float = 1.0,
    io_process: str = "",
) -> None:
    """As the supervisor of a worker does, when its process ended, or the worker for an I/O process
    of its own.
    """
    await rig.membership.ReportExit(
        membership_pb2.ReportExitRequest(
            worker=worker.name,
            device="sim:0",
            device_kind="sim",
            incarnation=worker.incarnation,
            exit=fleet_pb2.WorkerExit(
                ended="signal SIGSEGV",
                last_output="it began\nFatal Python error: Segmentation fault\n",
                in_a_row=in_a_row,
                ran_s=0.5,
                restart_in_s=restart_in_s,
            ),
            requests=requests,
            io_process=io_process,
        ),
        timeout=5,
    )


async def listed(rig: Rig) -> dict[str, Any]:
    answer = await rig.fleet.ListWorkers(fleet_pb2.ListWorkersRequest(), timeout=5)
    return {one.id: one for one in answer.workers}


async def test_a_report_that_would_fill_memory_is_refused(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        worker = ScriptedWorker("never")
        with pytest.raises(grpc.aio.AioRpcError) as too_many:
            await tell(rig, worker, *map(str, range(513)))
        assert too_many.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        worker.incarnation = ""  # it ended before it could draw one
        await tell(rig, worker, in_a_row=3, restart_in_s=math.inf)
        assert (await listed(rig))["never"].last_exit.restart_in_s == 0.0


async def test_a_crash_loop_is_a_state_with_its_last_output(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        stays, never = await rig.worker("stays"), ScriptedWorker("never")
        for count in (1, 2, 3):
            await tell(rig, never, in_a_row=count)
        workers = await listed(rig)
        assert workers["never"].state == fleet_pb2.WORKER_STATE_CRASH_LOOPING
        exit = workers["never"].last_exit
        assert (exit.ended, exit.in_a_row) == ("signal SIGSEGV", 3)
        assert "Segmentation fault" in exit.last_output
        assert not workers["stays"].HasField("last_exit")
        fleet = await rig.fleet.GetFleet(fleet_pb2.GetFleetRequest(), timeout=5)
        assert (fleet.workers_crash_looping, fleet.workers_ready) == (1, 1)
        # One that is up again serves, and how the one before ended is still shown.
        await never.start(rig.addresses.grpc)
        assert (await listed(rig))["never"].state == fleet_pb2.WORKER_STATE_READY
        assert (await listed(rig))["never"].last_exit.in_a_row == 3
        await never.die()
        stream = rig.events.WatchEvents(events_pb2.WatchEventsRequest(last=50), timeout=5)
        told = [one async for one in stream if one.kind == events_pb2.EVENT_KIND_WORKER_CRASHED]
        assert [one.reason for one in told] == ["", "", "CRASH_LOOPING"]
        assert "Fatal Python error: Segmentation fault" in told[-1].message
        assert stays.name in await listed(rig)


async def test_a_process_that_ended_gets_no_request_any_more(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        worker = await rig.worker("one")
        await worker.fall_silent()
        await tell(rig, worker)
        assert (await listed(rig))["one"].state == fleet_pb2.WORKER_STATE_LOST


class Fatal(ScriptedWorker):
    """Ends when it gets the poison, as a crash does; its supervisor says so. Like a real one it has
    one suspect in hand at a time.
    """

    @staticmethod
    def kills(request: worker_pb2.InferRequest) -> bool:
        return request.version.model == "shapes" and request.encoded == OTHER

    def __init__(self, name: str, rig: Rig) -> None:
        super().__init__(name)
        self._rig = rig
        self._hand: set[str] = set()
        self._suspect = asyncio.Lock()

    async def Infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        if not request.suspect:
            return await self._take(request, context)
        async with self._suspect:
            return await self._take(request, context)

    async def _take(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        self._hand.add(request.request_id)
        try:
            if self.kills(request):
                self.inferred.append(request)
                self.killing = asyncio.create_task(self._end(set(self._hand)))
                await asyncio.sleep(10)
            return await super().Infer(request, context)
        finally:
            self._hand.discard(request.request_id)

    async def _end(self, in_hand: set[str]) -> None:
        await self.die()
        await tell(self._rig, self, *in_hand)


async def fatal(rig: Rig, name: str, kind: type[Fatal] = Fatal) -> Fatal:
    worker = kind(name, rig)
    await worker.start(rig.addresses.grpc)
    return worker


async def test_an_image_that_ends_two_workers_is_refused_and_the_third_lives(
    tmp_path: Path,
) -> None:
    async with Rig(tmp_path, quarantine_s=600) as rig:
        workers = [await fatal(rig, name) for name in ("one", "two", "three")]
        await rig.ready("shapes")
        await rig.load("shapes", replicas=3)

        def detect(image: bytes, request_id: str = "") -> Any:
            return rig.detection.Detect(
                detection_pb2.DetectRequest(model="shapes", encoded=image, request_id=request_id),
                timeout=20,
            )

        for worker in workers:
            worker.infer_s = 0.2
        innocent = [asyncio.ensure_future(detect(IMAGE + bytes([n]))) for n in range(15)]
        await asyncio.sleep(0.05)
        error = await refused(detect(OTHER, "poison"))
        assert isinstance(error, errors.ImageQuarantined)
        assert not error.retryable
        assert error.retry_after_s is not None
        assert 590 < error.retry_after_s <= 600
        await asyncio.gather(*innocent)
        alive = [one for one in workers if all(r.request_id != "poison" for r in one.inferred)]
        assert len(alive) == 1
        # At once from now on, whoever sends it; and others are not looked at as suspects.
        assert isinstance(await refused(detect(OTHER)), errors.ImageQuarantined)
        await detect(IMAGE)
        assert not alive[0].inferred[-1].suspect
        stream = rig.events.WatchEvents(
            events_pb2.WatchEventsRequest(kinds=[events_pb2.EVENT_KIND_IMAGE_QUARANTINED]),
            timeout=5,
        )
        assert [len(one.image) async for one in stream] == [64]
        # Another control plane of the same store learns it.
        async with Rig(tmp_path / "other", rig.registry) as other:
            await alive[0].join(other.addresses.grpc)
            told = await refused(
                other.detection.Detect(
                    detection_pb2.DetectRequest(model="shapes", encoded=OTHER), timeout=20
                )
            )
            assert isinstance(told, errors.ImageQuarantined)
        await alive[0].die()  # the others did


class ToldLate(Fatal):
    """The supervisor of the first that ends tells so when two have."""

    ended: ClassVar[list[str]] = []

    async def _end(self, in_hand: set[str]) -> None:
        self.ended.append(self.name)
        await self.die()
        if self.ended[0] == self.name:
            await becomes(lambda: len(self.ended) > 1)
            await asyncio.sleep(0.3)
        await tell(self._rig, self, *in_hand)


async def test_an_image_is_convicted_though_the_first_end_is_told_after_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToldLate, "ended", [])
    async with Rig(tmp_path) as rig:
        workers = [await fatal(rig, name, ToldLate) for name in ("one", "two", "three")]
        await rig.ready("shapes")
        await rig.load("shapes", replicas=3)

        def detect() -> Any:
            request = detection_pb2.DetectRequest(model="shapes", encoded=OTHER)
            return rig.detection.Detect(request, timeout=20)

        first = asyncio.ensure_future(refused(detect()))
        await becomes(lambda: len(ToldLate.ended) == 2)
        # Neither who waits for the word nor who sends it again meanwhile ends a third.
        for told in await asyncio.gather(first, refused(detect())):
            assert isinstance(told, errors.ImageQuarantined)
        assert len(ToldLate.ended) == 2
        (alive,) = (one for one in workers if one.name not in ToldLate.ended)
        await alive.die()


async def test_what_ends_the_workers_of_one_version_is_fine_for_another(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        workers = [await fatal(rig, name) for name in ("one", "two", "three")]
        for model in ("shapes", "other"):
            await rig.ready(model)
            await rig.load(model, replicas=3)

        def detect(model: str) -> Any:
            request = detection_pb2.DetectRequest(model=model, encoded=OTHER)
            return rig.detection.Detect(request, timeout=20)

        assert isinstance(await refused(detect("shapes")), errors.ImageQuarantined)
        assert (await detect("other")).version.model == "other"
        assert isinstance(await refused(detect("shapes")), errors.ImageQuarantined)
        for one in workers:
            if one.inferred[-1].version.model == "other":
                await one.die()  # the others did


async def test_a_version_that_ends_its_workers_with_every_image_is_refused_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fatal, "kills", lambda self, request: request.version.model == "shapes")
    async with Rig(tmp_path) as rig:
        names = ("one", "two", "three", "four", "five")
        workers = [await fatal(rig, name) for name in names]
        for model in ("shapes", "other"):
            await rig.ready(model)
            await rig.load(model, replicas=len(names))

        def detect(model: str, image: bytes) -> Any:
            request = detection_pb2.DetectRequest(model=model, encoded=image)
            return rig.detection.Detect(request, timeout=20)

        assert isinstance(await refused(detect("shapes", IMAGE)), errors.ImageQuarantined)
        told = await refused(detect("shapes", OTHER))
        assert isinstance(told, errors.VersionQuarantined)
        assert not told.retryable
        assert told.retry_after_s is not None
        # Another innocent image is not tried at the cost of two more.
        before = sum(len(one.inferred) for one in workers)
        assert isinstance(await refused(detect("shapes", IMAGE + b"\0")), errors.VersionQuarantined)
        assert sum(len(one.inferred) for one in workers) == before
        assert (await detect("other", IMAGE)).version.model == "other"
        stream = rig.events.WatchEvents(
            events_pb2.WatchEventsRequest(kinds=[events_pb2.EVENT_KIND_VERSION_QUARANTINED]),
            timeout=5,
        )
        assert [one.version.model async for one in stream] == ["shapes"]
        (alive,) = (one for one in workers if one.inferred[-1:] and not hasattr(one, "killing"))
        await alive.die()


class Breaking(ScriptedWorker):
    """Loses an I/O process to the poison, tells so, and serves on."""

    def __init__(self, name: str, rig: Rig) -> None:
        super().__init__(name)
        self._rig = rig
        self.lost = 0

    async def Infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        if request.encoded != OTHER:
            return await super().Infer(request, context)
        self.lost += 1
        io_process = f"{self.name}-{self.lost}"
        self.telling = asyncio.create_task(
            tell(self._rig, self, request.request_id, io_process=io_process)
        )
        raise errors.WorkerLost("the connection is gone")


@pytest.mark.parametrize("count", [1, 2])
async def test_an_image_that_ends_two_io_processes_is_refused_and_their_workers_serve_on(
    count: int, tmp_path: Path
) -> None:
    async with Rig(tmp_path) as rig:
        workers = [Breaking(f"w{number}", rig) for number in range(count)]
        for worker in workers:
            await worker.start(rig.addresses.grpc)
        await rig.ready("shapes")
        await rig.load("shapes", replicas=count)

        def detect(image: bytes) -> Any:
            request = detection_pb2.DetectRequest(model="shapes", encoded=image)
            return rig.detection.Detect(request, timeout=3 if count == 1 else 20)

        told = await refused(detect(OTHER))
        if count == 1:  # there was no other to try; whoever sends it again has ended two
            assert isinstance(told, errors.DeadlineExceeded)
            told = await refused(detect(OTHER))
        assert isinstance(told, errors.ImageQuarantined)
        assert isinstance(await refused(detect(OTHER)), errors.ImageQuarantined)
        assert sum(one.lost for one in workers) == 2
        await detect(IMAGE)
        states = {one.state for one in (await listed(rig)).values()}
        assert states == {fleet_pb2.WORKER_STATE_READY}
        stream = rig.events.WatchEvents(
            events_pb2.WatchEventsRequest(kinds=[events_pb2.EVENT_KIND_WORKER_CRASHED]), timeout=5
        )
        assert [one.reason async for one in stream] == ["IO_PROCESS"] * 2
        for worker in workers:
            await worker.die()


async def test_a_worker_that_was_killed_from_outside_implicates_nobody(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        first, second = await rig.worker("one"), await rig.worker("two")
        await rig.ready("shapes")
        await rig.load("shapes", replicas=2)
        for worker in (first, second):
            worker.infer_s = 0.3
        image = detection_pb2.DetectRequest(model="shapes", encoded=IMAGE)
        call = asyncio.ensure_future(rig.detection.Detect(image, timeout=20))
        await becomes(lambda: bool(first.inferred or second.inferred))
        victim, other = (first, second) if first.inferred else (second, first)
        await victim.die()
        await tell(rig, victim)
        await call
        assert other.inferred[0].suspect  # nobody knew yet
        await rig.detection.Detect(image, timeout=20)
        assert not other.inferred[1].suspect
        assert other.replicas["shapes@1"].state == types_pb2.REPLICA_STATE_HOT
