"""`detect_stream` of both clients, against real control planes: order, ends, lost connections."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.store.memory_registry import MemoryRegistry
from tests.contract.control_plane_rig import Rig
from tests.contract.timed_worker import TimedWorker
from tests.waiting import becomes
from yolopool import AsyncClient, Client, Frame, FrameResult, errors

# Results of the stream; `each` is called with every one of them as it comes.
Run = Callable[..., Awaitable[list[FrameResult]]]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, drain_grace_s=5) as one:
        yield one


@pytest.fixture
async def worker(rig: Rig) -> AsyncIterator[TimedWorker]:
    one = TimedWorker()
    await one.serve(rig)
    yield one
    await one.die()


@pytest.fixture(params=["blocking", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """`await run(address, frames, each, **options)` on either client."""

    def blocking(address: str, frames: Any, each: Any, options: Any) -> list[FrameResult]:
        found = []
        with Client(address) as client:
            for result in client.detect_stream(frames, "shapes", **options):
                found.append(result)
                if each is not None and each(result):
                    break
        return found

    async def awaited(address: str, frames: Any, each: Any, options: Any) -> list[FrameResult]:
        found = []
        async with AsyncClient(address) as client:
            async for result in client.detect_stream(_polite(frames), "shapes", **options):
                found.append(result)
                if each is not None and each(result):
                    break
        return found

    async def start(address: str, frames: Any, each: Any = None, **options: Any) -> Any:
        if request.param == "asyncio":
            return await awaited(address, frames, each, options)
        return await asyncio.to_thread(blocking, address, frames, each, options)

    return start


async def _polite(frames: Iterable[Any]) -> AsyncIterator[Any]:
    """An iterator that takes its time, on a thread, so that the loop goes on."""
    source, end = iter(frames), object()
    while (frame := await asyncio.to_thread(next, source, end)) is not end:
        yield frame


def image(seconds: float) -> bytes:
    """What the worker takes so many seconds for."""
    return b"%g" % seconds


async def test_results_keep_the_order_and_the_names(
    run: Run, rig: Rig, worker: TimedWorker, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(image(0.2))
    frames = [
        Frame(tmp_path / "a.jpg", id="a", timestamp=2.5),
        tmp_path / "is not there.jpg",
        b"",
        image(0),
    ]
    results = await run(rig.addresses.grpc, frames, request_id="cam")
    assert [result.id for result in results] == ["a", 1, 2, 3]
    assert (results[0].timestamp, results[1].timestamp) == (2.5, 0.0)
    assert [type(result.error) for result in results] == [
        type(None), FileNotFoundError, errors.ImageEmpty, type(None),
    ]  # fmt: skip
    assert results[1].detections is None
    found = [result.detections for result in results if result.detections is not None]
    assert [one.class_name for one in found] == [("circle",), ("circle",)]
    assert [one.request_id for one in found] == ["cam/0", "cam/3"]
    assert found[0].source == image(0.2)  # to draw on
    assert results[0].age_s >= 0.2
    assert {result.dropped for result in results} == {0}


async def test_or_come_as_they_are_there(run: Run, rig: Rig, worker: TimedWorker) -> None:
    frames = [image(0.8), image(0.4), image(0)]
    results = await run(rig.addresses.grpc, frames, in_order=False)
    assert [result.id for result in results] == [2, 1, 0]


async def test_errors_are_typed(run: Run, rig: Rig, worker: TimedWorker) -> None:
    worker.on_infer = errors.OutOfMemory("too large", retry_after_s=2.0)
    (result,) = await run(rig.addresses.grpc, [image(0)])
    assert isinstance(result.error, errors.OutOfMemory)
    assert (result.error.retryable, result.error.retry_after_s) == (True, 2.0)
    assert result.error.details["request_id"].endswith("/0")


async def test_frames_are_taken_no_further_than_the_window(
    run: Run, rig: Rig, worker: TimedWorker
) -> None:
    taken = handed = most = 0

    def frames() -> Iterator[bytes]:
        nonlocal taken, most
        for _ in range(100):
            taken += 1
            most = max(most, taken - handed)
            yield image(0)

    def each(result: FrameResult) -> None:
        nonlocal handed
        time.sleep(0.002)
        handed += 1

    results = await run(rig.addresses.grpc, frames(), each, window=3)
    assert [result.id for result in results] == list(range(100))
    assert most <= 3 + 1  # a result is handed out before it is counted here


async def test_live_frames_are_dropped_and_counted(run: Run, rig: Rig, worker: TimedWorker) -> None:
    def camera() -> Iterator[bytes]:
        for _ in range(60):
            time.sleep(0.01)
            yield image(0.1)

    results = await run(rig.addresses.grpc, camera(), newest_only=True)
    numbers = [result.id for result in results]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 59
    assert 0 < results[-1].dropped == 60 - len(results)
    assert worker.most == 1


async def test_who_stops_reading_frees_all(run: Run, rig: Rig, worker: TimedWorker) -> None:
    closed = threading.Event()

    def camera() -> Iterator[bytes]:
        try:
            while True:
                time.sleep(0.005)
                yield image(0.02)
        finally:
            closed.set()

    await run(rig.addresses.grpc, camera(), lambda result: result.id >= 2)
    streams = rig.plane._metrics.streams._value
    await becomes(lambda: streams.get() == 0 and worker.running == 0, 5)
    await becomes(closed.is_set, 5)


async def test_what_the_iterator_raises_comes_after_its_frames(
    run: Run, rig: Rig, worker: TimedWorker
) -> None:
    def frames() -> Iterator[bytes]:
        yield image(0.1)
        yield image(0)
        raise KeyError("camera")

    seen: list[Any] = []
    with pytest.raises(KeyError, match="camera"):
        await run(rig.addresses.grpc, frames(), lambda result: seen.append(result.id))
    assert seen == [0, 1]


async def test_no_frames_no_results(run: Run, rig: Rig, worker: TimedWorker) -> None:
    assert await run(rig.addresses.grpc, []) == []


async def test_an_address_where_nobody_is_is_told(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(errors.Unavailable):
            await run(f"127.0.0.1:{taken.getsockname()[1]}", [image(0)], timeout_s=0.2)


async def test_wrong_options_are_refused_before_anything_is_sent(run: Run) -> None:
    with pytest.raises(errors.InvalidOption, match="window"):
        await run("127.0.0.1:1", [], window=0)
    with pytest.raises(TypeError, match="colour"):
        await run("127.0.0.1:1", [], colour=1)
    with pytest.raises(errors.InvalidOption, match="priority"):
        await run("127.0.0.1:1", [], priority="high")


async def test_what_ends_the_stream_is_raised(run: Run, rig: Rig, worker: TimedWorker) -> None:
    with pytest.raises(errors.InvalidOption, match="iou"):
        await run(rig.addresses.grpc, [image(0)], iou=2.0)


@pytest.mark.parametrize("how", ["drained", "killed"])
async def test_a_lost_control_plane_is_replaced_and_no_frame_is_lost(
    run: Run, tmp_path: Path, how: str
) -> None:
    registry = MemoryRegistry()
    worker = TimedWorker()
    async with (
        Rig(tmp_path / "a", registry, drain_grace_s=5) as one,
        Rig(tmp_path / "b", registry, drain_grace_s=5) as other,
    ):
        await worker.serve(one, other.addresses.grpc)
        await becomes(lambda: other.plane.view.catalogue.models)
        rigs = {True: one, False: other}
        address = f"ipv4:{one.addresses.grpc},{other.addresses.grpc}"
        loop, stopped = asyncio.get_running_loop(), threading.Event()

        async def stop() -> None:
            first = one.plane._metrics.streams._value.get() == 1
            plane = rigs[first].plane
            if how == "drained":
                await plane.stop()
            else:
                await plane._server.server.stop(0)

        def each(result: FrameResult) -> None:
            if result.id == 5 and not stopped.is_set():
                stopped.set()
                asyncio.run_coroutine_threadsafe(stop(), loop)

        results = await run(address, [image(0.05)] * 40, each, window=4)
        assert [result.id for result in results] == list(range(40))
        assert all(result.detections is not None for result in results)
        await worker.die()
