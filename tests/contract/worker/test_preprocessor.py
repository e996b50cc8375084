"""Preprocessing on threads and in I/O processes: what it prepares, refuses, and frees."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import psutil
import pytest

from tests.waiting import becomes
from worker.concurrency.reply import Reply
from worker.io_processes import pool
from worker.io_processes.pool import IoExit, IoProcessPool
from worker.io_processes.protocol import IoSettings
from worker.preprocess import arena, decode, letterbox
from worker.preprocess.arena import Arena
from worker.preprocess.decode import ChannelOrder, ImageLimits
from worker.preprocess.prepared import (
    Box,
    ImageConsumer,
    ImageSource,
    Prepared,
    PreprocessSpec,
    RawPixels,
    identity,
)
from worker.preprocess.preprocessor import Preprocessor
from yolopool.errors import (
    DeadlineExceeded,
    Draining,
    ImageDamaged,
    ImageNotDecodable,
    ImageTooLarge,
    InvalidOption,
    QueueFull,
    Unavailable,
)
from yolopool.status import error_from_rpc
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2, worker_pb2_grpc
from yolopool.vocabulary import ShapePolicy

LIMITS = ImageLimits(max_bytes=1_000_000, max_pixels=1_000_000)
SPEC = PreprocessSpec(image_size=64, stride=32, policy=ShapePolicy.RECT)
PIXELS = np.random.default_rng(3).integers(0, 256, (60, 90, 3), np.uint8)
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()


def small(slots: int = 80) -> Arena:
    """Room for so many images of SPEC."""
    return Arena(arena.private(slots * SPEC.max_bytes))


class Threads:
    """Preprocessing on threads of this process."""

    def __init__(self, slots: int = 80) -> None:
        self._preprocessor = Preprocessor(
            threads=2, capacity=4, limits=LIMITS, arena=small(slots), clock=time.monotonic
        )
        self._preprocessor.start()
        self.prepare = self._preprocessor.prepare

    async def prepare_then(self, source: bytes, consumer: ImageConsumer[int]) -> int:
        return await self._preprocessor.prepare_then(source, None, SPEC, consumer)

    async def close(self) -> None:
        self._preprocessor.close()


class Processes:
    """Preprocessing in an I/O process over gRPC, as its device process sees it."""

    def __init__(self, slots: int = 80, hang_s: float = 10.0) -> None:
        settings = IoSettings(
            "127.0.0.1",
            0,
            2,
            4,
            LIMITS.max_bytes,
            LIMITS.max_pixels,
            LIMITS.max_raw_bytes,
            "ERROR",
            log_json=True,
        )
        memory_bytes = slots * SPEC.max_bytes
        self.keeper = IoProcessPool(
            1,
            lambda _: settings,
            memory_bytes,
            self._any,
            lambda: None,
            self._exited,
            hang_s,
            time.monotonic,
        )
        self.exits: list[IoExit] = []
        # Runs after an image was prepared, as a device would.
        self.device: Callable[[], Awaitable[object]] = no_time
        self.ended: list[type[BaseException]] = []
        self.answering = self._infer
        self._asked: dict[str, PreprocessSpec] = {}
        self._prepared: dict[str, Prepared] = {}
        self._channel: grpc.aio.Channel | None = None

    async def _exited(self, exit: IoExit) -> None:
        self.exits.append(exit)

    async def _any(self, *asked: Any) -> worker_pb2.InferResponse:
        return await self.answering(*asked)

    async def _infer(
        self, request: worker_pb2.InferRequest, remaining_s: float | None, image: ImageSource
    ) -> worker_pb2.InferResponse:
        name = request.request_id
        try:
            prepared = await image.prepare_then(self._asked[name], identity)
            await self.device()
        except BaseException as error:
            self.ended.append(type(error))  # the error itself holds the pixels
            raise
        self._prepared[name] = prepared
        return worker_pb2.InferResponse()

    async def prepare(
        self,
        source: bytes | RawPixels,
        region: Box | None,
        spec: PreprocessSpec,
        timeout_s: float = 20.0,
    ) -> Prepared:
        if self._channel is None:
            await self.keeper.start()
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.keeper.ports[0]}")
        request = worker_pb2.InferRequest(request_id=str(len(self._asked)))
        self._asked[request.request_id] = spec
        if isinstance(source, RawPixels):
            request.raw.data, request.raw.channel_order = source.data, types_pb2.CHANNEL_ORDER_BGR
            request.raw.height, request.raw.width = source.height, source.width
        else:
            request.encoded = source
        if region is not None:
            corners = types_pb2.Box(
                x_min=region[0], y_min=region[1], x_max=region[2], y_max=region[3]
            )
            request.options.region_of_interest.CopyFrom(corners)
        try:
            await worker_pb2_grpc.WorkerServiceStub(self._channel).Infer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        return self._prepared.pop(request.request_id)

    async def prepare_then(self, source: bytes, consumer: ImageConsumer[int]) -> int:
        answered: list[int] = []

        async def answer(request: Any, remaining_s: float | None, image: ImageSource) -> Any:
            answered.append(await image.prepare_then(SPEC, consumer))
            return worker_pb2.InferResponse()

        self.answering = answer
        try:
            with suppress(KeyError):  # nothing was prepared for this harness
                await self.prepare(source, None, SPEC)
        finally:
            self.answering = self._infer
        return answered[0]

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        await self.keeper.stop()


async def no_time() -> None:
    """The time of a device that does nothing."""


Door = Callable[..., Threads | Processes]


@pytest.fixture(params=[Threads, Processes])
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    made: list[Threads | Processes] = []

    def make(slots: int = 80) -> Threads | Processes:
        made.append(request.param(slots))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def preprocessor(door: Door) -> Threads | Processes:
    return door()


class Gate:
    """A clock that stands still, and with it the thread that reads it, until opened."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self) -> float:
        self.reached.release()
        self.opened.wait()
        return 0.0


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


async def test_prepares_encoded_and_raw_images_alike(preprocessor: Threads | Processes) -> None:
    raw = RawPixels(PIXELS.tobytes(), 60, 90, ChannelOrder.BGR)
    expected = letterbox.letterbox(PIXELS, 64, 32, ShapePolicy.RECT)
    for source in (PNG, raw):
        prepared = await preprocessor.prepare(source, None, SPEC)
        np.testing.assert_array_equal(prepared.letterboxed.image, expected.image)
        assert prepared.letterboxed.original_shape == prepared.image_shape == (60, 90)
        assert prepared.offset == (0, 0)
        assert prepared.decode_s > 0
        assert prepared.preprocess_s > 0


async def test_prepares_only_the_region(preprocessor: Threads | Processes) -> None:
    prepared = await preprocessor.prepare(PNG, (10.5, 20, 50, 60), SPEC)
    expected = letterbox.letterbox(PIXELS[20:60, 10:50].copy(), 64, 32, ShapePolicy.RECT)
    np.testing.assert_array_equal(prepared.letterboxed.image, expected.image)
    assert prepared.offset == (10, 20)
    assert prepared.image_shape == (60, 90)
    assert prepared.letterboxed.original_shape == (40, 40)


def mostly(level: int) -> bytes:
    """A JPEG of one level, large enough that half of it is many rows."""
    pixels = np.full((600, 900, 3), level, np.uint8)
    pixels[::7, ::5] = level - 3
    return cv2.imencode(".jpg", pixels)[1].tobytes()


async def test_a_damaged_image_is_refused_or_told_with_its_answer(
    preprocessor: Threads | Processes,
) -> None:
    whole = mostly(40)
    damaged = whole[: len(whole) // 2] + b"\xff\xd9"
    accepting = replace(SPEC, accept_damaged=True)
    with pytest.raises(ImageDamaged, match="premature end of data segment"):
        await preprocessor.prepare(damaged, None, SPEC)
    assert "premature end" in (await preprocessor.prepare(damaged, None, accepting)).damage
    assert (await preprocessor.prepare(whole, None, accepting)).damage == ""


async def test_no_former_picture_shows_in_a_damaged_one(door: Door) -> None:
    """Neither in the slot of the arena nor in the decoder's output, which are used again."""
    preprocessor = door(slots=1)
    dark = mostly(40)
    damaged = dark[: len(dark) // 2] + b"\xff\xd9"
    spec = replace(SPEC, accept_damaged=True)
    alone = decode.decode(damaged, LIMITS, accept_damaged=True).pixels
    assert alone.max() <= 128 + 1  # libjpeg fills with grey
    expected = letterbox.letterbox(alone, 64, 32, ShapePolicy.RECT).image
    for _ in range(4):
        former = (await once_there_is_room(preprocessor, spec, mostly(250))).letterboxed.image
        assert np.median(former) > 240
        del former
        found = (await once_there_is_room(preprocessor, spec, damaged)).letterboxed.image
        np.testing.assert_array_equal(found, expected)
        del found


async def test_errors_come_through_and_give_their_place_back(
    preprocessor: Threads | Processes,
) -> None:
    for _ in range(9):
        with pytest.raises(ImageNotDecodable):
            await preprocessor.prepare(PNG[:-40], None, SPEC)
        with pytest.raises(InvalidOption):
            await preprocessor.prepare(PNG, (0, 0, 91, 60), SPEC)
        with pytest.raises(ImageTooLarge):
            await preprocessor.prepare(bytes(1_000_001), None, SPEC)


async def test_a_slot_is_lent_as_long_as_a_view_of_it_is_held(door: Door) -> None:
    preprocessor = door(slots=2)
    first = (await preprocessor.prepare(PNG, None, SPEC)).letterboxed.image
    pixels, part = first.copy(), first[3:5, 7:]
    held = [await preprocessor.prepare(PNG, None, SPEC)]
    del first
    for _ in range(9):
        with pytest.raises(QueueFull, match="2 images fill the memory"):
            await preprocessor.prepare(PNG, None, SPEC)
    np.testing.assert_array_equal(part, pixels[3:5, 7:])
    del part
    held.append(await once_there_is_room(preprocessor))
    held.clear()
    await once_there_is_room(preprocessor)
    for _ in range(9):  # a failure keeps none
        with pytest.raises(ImageNotDecodable):
            await once_there_is_room(preprocessor, source=PNG[:-40])
    with pytest.raises(ImageTooLarge, match="--intake-memory"):
        await once_there_is_room(preprocessor, PreprocessSpec(640, 32, ShapePolicy.RECT))


async def test_who_keeps_an_error_keeps_no_slot() -> None:
    preprocessor = Threads(slots=1)
    line = cv2.imencode(".png", np.zeros((1, 5000), np.uint8))[1].tobytes()
    kept = []
    for source, spec in 3 * ((PNG[:-40], SPEC), (line, replace(SPEC, crop=True))):
        with pytest.raises((ImageNotDecodable, ImageTooLarge)) as caught:
            await preprocessor.prepare(source, None, spec)
        kept.append(caught.value)
    assert {type(error) for error in kept} == {ImageNotDecodable, ImageTooLarge}
    await preprocessor.close()


async def test_who_found_no_place_or_left_it_keeps_no_slot(gate: Gate) -> None:
    preprocessor = Preprocessor(threads=1, capacity=2, limits=LIMITS, arena=small(2), clock=gate)
    preprocessor.start()

    async def another() -> asyncio.Task[Prepared]:
        task = asyncio.create_task(preprocessor.prepare(PNG, None, SPEC))
        await asyncio.sleep(0)
        return task

    first = await another()
    await asyncio.to_thread(gate.reached.acquire)
    second = await another()
    with pytest.raises(QueueFull, match="2 images are being decoded") as refused:
        await preprocessor.prepare(PNG, None, SPEC)
    second.cancel()
    await asyncio.wait([second])
    third = await another()
    gate.opened.set()
    np.testing.assert_array_equal((await first).letterboxed.image, (await third).letterboxed.image)
    assert refused.value
    await asyncio.to_thread(preprocessor.close)


async def once_there_is_room(
    preprocessor: Threads | Processes, spec: PreprocessSpec = SPEC, source: bytes = PNG
) -> Prepared:
    """Retries until a slot is free: the message that frees one takes time between processes, and a
    thread keeps its last result until it runs again.
    """
    async with asyncio.timeout(20):
        while True:
            try:
                return await preprocessor.prepare(source, None, spec)
            except QueueFull:
                await asyncio.sleep(0.01)


async def test_a_killed_process_loses_only_its_own_calls_and_is_restarted() -> None:
    preprocessor = Processes(slots=2)
    kept = (await preprocessor.prepare(PNG, None, SPEC)).letterboxed.image
    pixels, first = kept.copy(), dict(preprocessor.keeper.pids)
    os.kill(first[0], signal.SIGKILL)
    with pytest.raises(Unavailable):
        await preprocessor.prepare(PNG, None, SPEC)
    np.testing.assert_array_equal(kept, pixels)  # a batch may be reading it
    await becomes(lambda: bool(preprocessor.keeper.pids) and preprocessor.keeper.pids != first)
    assert preprocessor._channel is not None
    await preprocessor._channel.close()
    preprocessor._channel = grpc.aio.insecure_channel(f"127.0.0.1:{preprocessor.keeper.ports[0]}")
    held = [await preprocessor.prepare(PNG, None, SPEC) for _ in range(2)]
    np.testing.assert_array_equal(held[1].letterboxed.image, pixels)
    await preprocessor.close()
    assert not psutil.pid_exists(first[0])
    assert not preprocessor.keeper.pids


async def test_a_caller_that_leaves_is_heard_in_the_device_process() -> None:
    preprocessor = Processes(slots=1)
    await preprocessor.prepare(PNG, None, SPEC)
    running = asyncio.Event()

    async def for_ever() -> None:
        running.set()
        await asyncio.Event().wait()

    preprocessor.device = for_ever
    call = asyncio.create_task(once_there_is_room(preprocessor))
    await running.wait()
    with pytest.raises(QueueFull, match="1 images fill the memory"):
        await preprocessor.prepare(PNG, None, SPEC)
    call.cancel()
    await becomes(lambda: asyncio.CancelledError in preprocessor.ended)
    preprocessor.device = no_time
    await once_there_is_room(preprocessor)
    await preprocessor.close()


async def test_a_process_that_hangs_holds_no_call_beyond_its_deadline() -> None:
    preprocessor = Processes()
    await preprocessor.prepare(PNG, None, SPEC)
    gate = asyncio.Event()
    ask = preprocessor.answering

    async def gated(request: Any, remaining_s: float | None, image: ImageSource) -> Any:
        os.kill(preprocessor.keeper.pids[0], signal.SIGSTOP)  # it admits the call, then hangs
        gate.set()
        return await ask(request, remaining_s, image)

    preprocessor.answering = gated
    call = asyncio.create_task(preprocessor.prepare(PNG, None, SPEC, timeout_s=0.3))
    await gate.wait()
    with pytest.raises(DeadlineExceeded):
        await call
    await becomes(lambda: bool(preprocessor.ended))
    assert preprocessor.ended == [DeadlineExceeded]
    await preprocessor.close()  # it is killed: it does not end by itself


async def test_the_requests_in_flight_of_a_killed_process_are_reported() -> None:
    """As by the kernel, when an image takes more memory than there is."""
    preprocessor = Processes()
    await preprocessor.prepare(PNG, None, SPEC)
    ask = preprocessor.answering

    async def killed(request: Any, remaining_s: float | None, image: ImageSource) -> Any:
        os.kill(preprocessor.keeper.pids[0], signal.SIGSTOP)
        asyncio.get_running_loop().call_later(
            0.2, os.kill, preprocessor.keeper.pids[0], signal.SIGKILL
        )
        return await ask(request, remaining_s, image)

    preprocessor.answering = killed
    with pytest.raises(Unavailable):
        await preprocessor.prepare(PNG, None, SPEC)
    await becomes(lambda: bool(preprocessor.exits))
    (exit,) = preprocessor.exits
    assert (exit.ended, exit.requests, exit.restart.attempt) == ("signal SIGKILL", ("1",), 1)
    await preprocessor.close()
    assert len(preprocessor.exits) == 1  # a stop is no exit


async def test_a_process_that_hangs_is_ended_and_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PING_S", 0.1)
    preprocessor = Processes(hang_s=0.5)
    await preprocessor.prepare(PNG, None, SPEC)
    first = dict(preprocessor.keeper.pids)
    os.kill(first[0], signal.SIGSTOP)
    await becomes(lambda: bool(preprocessor.keeper.pids) and preprocessor.keeper.pids != first)
    assert [exit.ended for exit in preprocessor.exits] == ["hung"]
    assert not psutil.pid_exists(first[0])
    await preprocessor.close()


class Answering:
    """An I/O process that answers pings, while one image is never done."""

    def __init__(self) -> None:
        self.frames = self
        self.lost = asyncio.Event()
        self.pongs = self.oldest = 0

    def send(self, kind: object) -> None:
        self.pongs += 1


async def test_one_whose_decoder_hangs_has_hung_and_one_that_is_idle_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "PING_S", 0.02)
    keeper, calls = Processes(hang_s=0.2).keeper, Answering()
    looking = asyncio.create_task(keeper._hangs(calls, os.getpid()))  # type: ignore[arg-type] # its face
    await asyncio.sleep(0.5)
    assert not looking.done()
    calls.oldest = 7
    assert await looking


async def test_one_that_never_listens_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preprocessor = Processes()
    await preprocessor.prepare(PNG, None, SPEC)
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o700)
    monkeypatch.setattr(pool, "START_S", 0.2)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    os.kill(preprocessor.keeper.pids[0], signal.SIGKILL)
    await becomes(lambda: len(preprocessor.exits) == 2)
    assert "did not listen" in preprocessor.exits[1].ended
    await preprocessor.close()


async def test_answers_that_were_given_go_out_before_the_end() -> None:
    preprocessor = Processes()
    await preprocessor.prepare(PNG, None, SPEC)
    answered = asyncio.Event()

    async def long(request: Any, remaining_s: float | None, image: ImageSource) -> Any:
        answered.set()
        result = detection_pb2.DetectResponse(request_id="x" * 3_000_000)
        return worker_pb2.InferResponse(result=result)

    preprocessor.answering = long
    assert preprocessor._channel is not None
    stub = worker_pb2_grpc.WorkerServiceStub(preprocessor._channel)
    call = stub.Infer(worker_pb2.InferRequest(encoded=PNG), timeout=20)
    reading = asyncio.ensure_future(call)
    await answered.wait()
    await preprocessor.keeper.stop()
    assert len((await reading).result.request_id) == 3_000_000
    await preprocessor.close()


async def test_refuses_at_once_when_full(gate: Gate) -> None:
    preprocessor = Preprocessor(threads=1, capacity=2, limits=LIMITS, arena=small(), clock=gate)
    preprocessor.start()
    held = [asyncio.create_task(preprocessor.prepare(PNG, None, SPEC)) for _ in range(2)]
    await asyncio.to_thread(gate.reached.acquire)
    assert preprocessor.oldest == 1
    with pytest.raises(QueueFull, match="2 images"):
        await preprocessor.prepare(PNG, None, SPEC)
    gate.opened.set()
    assert len(await asyncio.gather(*held)) == 2
    assert preprocessor.oldest == 0
    await preprocessor.prepare(PNG, None, SPEC)
    preprocessor.close()


async def test_cancelled_work_gives_its_place_back_when_it_ends(gate: Gate) -> None:
    preprocessor = Preprocessor(threads=1, capacity=2, limits=LIMITS, arena=small(), clock=gate)
    preprocessor.start()
    running = asyncio.create_task(preprocessor.prepare(PNG, None, SPEC))
    await asyncio.to_thread(gate.reached.acquire)
    waiting = asyncio.create_task(preprocessor.prepare(PNG, None, SPEC))
    await asyncio.sleep(0)
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert running.cancelled()
    assert waiting.cancelled()
    # The one that waited left at once; the other's thread is still at work.
    third = asyncio.create_task(preprocessor.prepare(PNG, None, SPEC))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await preprocessor.prepare(PNG, None, SPEC)
    gate.opened.set()
    assert (await third).image_shape == (60, 90)
    preprocessor.close()


async def test_what_is_done_with_an_image_may_fail_as_its_decoding_may(
    preprocessor: Threads | Processes,
) -> None:
    def refuses(prepared: Prepared, reply: Reply[int]) -> None:
        raise QueueFull(f"no room for one of {prepared.image_shape}")

    with pytest.raises(QueueFull, match="no room for one of"):
        await preprocessor.prepare_then(PNG, refuses)
    with pytest.raises(ImageNotDecodable):
        await preprocessor.prepare_then(PNG[:-40], refuses)
    assert await preprocessor.prepare_then(PNG, lambda prepared, reply: reply(7, None)) == 7


async def test_an_image_that_is_refused_behind_its_decoding_keeps_no_slot(door: Door) -> None:
    preprocessor = door(slots=1)

    def refuses(prepared: Prepared, reply: Reply[int]) -> None:
        raise QueueFull("refused behind its decoding")

    async def refused_behind() -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    await preprocessor.prepare_then(PNG, refuses)
                except QueueFull as error:
                    if "behind its decoding" in error.message:
                        return
                await asyncio.sleep(0.01)

    gc.disable()
    try:
        for _ in range(3):
            await refused_behind()
        await once_there_is_room(preprocessor)
    finally:
        gc.enable()


async def test_what_waits_for_a_thread_when_it_closes_is_refused(gate: Gate) -> None:
    preprocessor = Preprocessor(threads=1, capacity=2, limits=LIMITS, arena=small(), clock=gate)
    preprocessor.start()
    running, waiting = (
        asyncio.create_task(preprocessor.prepare(PNG, None, SPEC)) for _ in range(2)
    )
    await asyncio.to_thread(gate.reached.acquire)
    closing = asyncio.create_task(asyncio.to_thread(preprocessor.close))
    with pytest.raises(Draining):
        await waiting
    gate.opened.set()
    assert (await running).image_shape == (60, 90)
    await closing


async def test_closed_it_refuses_and_leaves_no_thread(gate: Gate) -> None:
    preprocessor = Preprocessor(threads=2, capacity=4, limits=LIMITS, arena=small(), clock=gate)
    preprocessor.start()
    gate.opened.set()
    await preprocessor.prepare(PNG, None, SPEC)
    preprocessor.close()
    preprocessor.close()
    with pytest.raises(Draining):
        await preprocessor.prepare(PNG, None, SPEC)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("preprocess")]
    assert cv2.getNumThreads() == 1
