"""DetectStream as its callers meet it, over real gRPC: order, windows, newest only, ends."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from control_plane.gateway.dispatch import Caller
from tests.contract.control_plane_rig import Rig, refused
from tests.contract.timed_worker import TimedWorker
from tests.waiting import becomes
from yolopool import errors
from yolopool.status import error_from_rpc
from yolopool.v1 import detection_pb2, explain_pb2, types_pb2, worker_pb2

Answer = detection_pb2.DetectStreamResponse
METHOD = "/yolopool.v1.DetectionService/DetectStream"


class Talk:
    """One stream, message by message."""

    def __init__(self, rig: Rig, metadata: Any = (), **opening: Any) -> None:
        self.call = rig.detection.DetectStream(metadata=metadata)
        opening.setdefault("model", "shapes")
        self._opening = detection_pb2.StreamOpening(**opening)
        self._sent = 0

    async def open(self) -> "Talk":
        await self.call.write(detection_pb2.DetectStreamRequest(opening=self._opening))
        return self

    async def send(self, *seconds: float, **frame: Any) -> None:
        """A frame for each number of seconds that its pass takes."""
        for took in seconds:
            frame["encoded"] = b"%g" % took
            await self.put(**frame)

    async def put(self, **frame: Any) -> None:
        frame.setdefault("frame_id", self._sent)
        self._sent += 1
        message = detection_pb2.StreamFrame(**frame)
        await self.call.write(detection_pb2.DetectStreamRequest(frame=message))

    async def read(self) -> Answer:
        """The next answer to a frame."""
        while True:
            answer = await asyncio.wait_for(self.call.read(), 20)
            assert answer is not grpc.aio.EOF, "the stream ended"
            if answer.WhichOneof("outcome"):
                assert isinstance(answer, Answer)
                return answer

    async def rest(self) -> list[Answer]:
        """Closes this side; all answers that are left."""
        await self.call.done_writing()
        answers = []
        while (answer := await asyncio.wait_for(self.call.read(), 20)) is not grpc.aio.EOF:
            if answer.WhichOneof("outcome"):
                answers.append(answer)
        assert await self.call.code() is grpc.StatusCode.OK, await self.call.details()
        return answers

    async def failed(self) -> errors.YolopoolError:
        """The typed error with which it ends."""
        try:
            while await asyncio.wait_for(self.call.read(), 20) is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error_from_rpc(error)
        raise AssertionError(f"it ended with {await self.call.code()}")


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


def ids(answers: list[Answer]) -> list[int]:
    return [answer.frame_id for answer in answers]


def gauge(rig: Rig, name: str) -> float:
    value = rig.plane._metrics._registry.get_sample_value(name)
    assert value is not None
    return value


async def test_each_frame_is_a_detect_and_answers_keep_the_order(
    rig: Rig, worker: TimedWorker
) -> None:
    talk = await Talk(rig, request_id="cam-1", window=3).open()
    await talk.send(0.2, 0.1, 0.0, timestamp_s=7.5)
    answers = await talk.rest()
    assert ids(answers) == [0, 1, 2]
    assert {answer.response.detections[0].class_name for answer in answers} == {"circle"}
    assert [answer.response.request_id for answer in answers] == ["cam-1/0", "cam-1/1", "cam-1/2"]
    assert {answer.timestamp_s for answer in answers} == {7.5}
    assert answers[0].age_ms >= 200
    # No other priority waits for streams, unless it is asked for.
    assert {one.priority for one in worker.inferred} == {types_pb2.PRIORITY_BULK}
    asked = explain_pb2.ExplainRequestRequest(request_id="cam-1/1")
    (trace,) = (await rig.explain.ExplainRequest(asked, timeout=5)).requests
    assert (trace.outcome, trace.worker) == ("OK", "w1")


async def test_frames_belong_to_the_trace_of_their_stream(rig: Rig, worker: TimedWorker) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with structlog.testing.capture_logs() as lines:
        metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),)
        talk = await Talk(rig, metadata, request_id="traced").open()
        await talk.send(0)
        await talk.rest()
    logged = {line.get("request_id"): line.get("trace_id") for line in lines}
    assert logged["traced/0"] == trace


async def test_or_come_as_they_are_there(rig: Rig, worker: TimedWorker) -> None:
    opening: dict[str, Any] = {"order": detection_pb2.STREAM_ORDER_ANSWERS}
    talk = await Talk(rig, priority=types_pb2.PRIORITY_NORMAL, **opening).open()
    await talk.send(0.6, 0.3, 0.0)
    assert ids(await talk.rest()) == [2, 1, 0]
    assert {one.priority for one in worker.inferred} == {types_pb2.PRIORITY_NORMAL}


async def test_an_error_of_one_frame_does_not_end_the_stream(rig: Rig, worker: TimedWorker) -> None:
    talk = await Talk(rig, request_id="s").open()
    await talk.send(0)
    await talk.put()  # without an image
    raw = types_pb2.RawImage(height=2, width=2, channel_order=types_pb2.CHANNEL_ORDER_BGR)
    await talk.put(raw=raw)
    await talk.send(0)
    answers = await talk.rest()
    assert [answer.error.reason for answer in answers] == [
        "", "IMAGE_EMPTY", "IMAGE_SHAPE_MISMATCH", "",
    ]  # fmt: skip
    error = answers[1].error
    assert (error.code, error.retryable) == ("INVALID_ARGUMENT", False)
    assert error.details["request_id"] == "s/1"
    assert "set encoded or raw" in error.message


async def test_a_model_that_is_not_there_fails_frame_by_frame(
    rig: Rig, worker: TimedWorker
) -> None:
    talk = await Talk(rig, model="later").open()
    await talk.send(0)
    assert (await talk.read()).error.reason == "MODEL_NOT_FOUND"
    await rig.ready("later")
    await talk.send(0)
    assert (await talk.read()).response.version.model == "later"


async def test_a_frame_has_a_time_of_its_own(rig: Rig, worker: TimedWorker) -> None:
    talk = await Talk(rig, frame_timeout_ms=300, window=4).open()
    await talk.send(30, 0, 30)
    answers = await talk.rest()
    assert [answer.error.reason for answer in answers] == [
        "DEADLINE_EXCEEDED", "", "DEADLINE_EXCEEDED",
    ]  # fmt: skip
    await becomes(lambda: worker.running == 0)


async def test_frames_wait_for_a_full_queue(rig: Rig, worker: TimedWorker) -> None:
    worker.on_infer = errors.QueueFull("full", retry_after_s=0.01)
    talk = await Talk(rig).open()
    await talk.send(0, 0, 0)
    outcomes = rig.plane._metrics.outcomes
    await becomes(lambda: outcomes["QUEUE_FULL"] >= 6)
    worker.on_infer = None
    answers = await talk.rest()
    assert ids(answers) == [0, 1, 2]
    assert all(answer.HasField("response") for answer in answers)


async def test_a_full_queue_is_asked_no_sooner_than_it_says(rig: Rig, worker: TimedWorker) -> None:
    """Though more frames wait than may be in flight, each of which could take the next turn."""
    worker.on_infer = errors.QueueFull("full", retry_after_s=10)
    talk = await Talk(rig, window=16).open()
    await talk.send(*[0.1] * 16)
    outcomes = rig.plane._metrics.outcomes
    await becomes(lambda: outcomes["QUEUE_FULL"] >= 1)
    await asyncio.sleep(0.5)
    assert outcomes["QUEUE_FULL"] <= 4  # those that were in flight


async def test_but_no_longer_than_their_time(rig: Rig, worker: TimedWorker) -> None:
    worker.on_infer = errors.QueueFull("full", retry_after_s=0.01)
    talk = await Talk(rig, frame_timeout_ms=200).open()
    await talk.send(0)
    error = (await talk.read()).error
    assert error.reason in ("QUEUE_FULL", "DEADLINE_EXCEEDED")


async def test_images_are_freed_when_they_are_answered(rig: Rig, worker: TimedWorker) -> None:
    """Not when Python next looks for cycles: a few large images do not make it look."""

    def alive() -> int:
        worker.inferred.clear()
        kinds = (worker_pb2.InferRequest, detection_pb2.DetectRequest)
        return sum(type(one) in kinds for one in gc.get_objects())

    talk = await Talk(rig).open()
    await talk.send(0)
    await talk.read()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for worker.on_infer in (None, errors.ImageNotDecodable("no image")):
            for _ in range(3):
                await talk.send(0)
                await talk.read()
                with suppress(grpc.aio.AioRpcError):
                    await rig.detect("shapes", encoded=b"0")
        await becomes(lambda: alive() <= before, 5)
    finally:
        gc.enable()


# --- newest only --------------------------------------------------------------------------------


async def test_only_the_newest_frame_waits(rig: Rig, worker: TimedWorker) -> None:
    worker.gate.clear()
    talk = await Talk(rig, newest_only=True, window=4).open()
    await talk.send(0)
    await becomes(lambda: worker.running == 1)
    await talk.send(*[0] * 20)
    progress = await talk.call.read()
    assert not progress.WhichOneof("outcome")  # it says how far it has read, though nothing is done
    await becomes(lambda: gauge(rig, "yolopool_stream_frames_dropped_total") == 19)
    worker.gate.set()
    answers = await talk.rest()
    assert ids(answers) == [0, 20]
    assert (answers[-1].dropped, answers[-1].received) == (19, 21)
    assert progress.held[0] == 0
    assert [list(answer.held) for answer in answers] == [[20], []]  # not the one it answers
    assert worker.most == 1


async def test_live_streams_get_equally_much_of_a_device(rig: Rig, worker: TimedWorker) -> None:
    """Eight cameras faster than the device: each sends as soon as it may, all at once."""
    answered = Counter[int]()

    async def camera(number: int) -> None:
        talk = await Talk(rig, newest_only=True).open()

        async def film() -> None:
            while True:
                await talk.send(0.01)
                await asyncio.sleep(0.005)

        filming = asyncio.create_task(film())
        try:
            while answered.total() < 160:
                await talk.read()
                answered[number] += 1
        finally:
            filming.cancel()
            talk.call.cancel()

    await asyncio.gather(*map(camera, range(8)))
    assert max(answered.values()) - min(answered.values()) <= 4
    # As many as keep a device busy whose passes have one image, and no more wait at the worker.
    assert worker.most <= 4


# --- slow readers, and ends ---------------------------------------------------------------------


async def test_no_more_is_run_than_a_slow_reader_takes(rig: Rig, worker: TimedWorker) -> None:
    """Answers of a MiB each, which the connection does not swallow for a reader that sleeps."""
    worker.padding = "x" * 2**20
    talk = await Talk(rig, window=4).open()
    sending = asyncio.create_task(talk.send(*[0] * 200))
    seen = [-1]
    while len(worker.inferred) != seen[-1]:
        seen.append(len(worker.inferred))
        await asyncio.sleep(0.5)
    assert seen[-1] <= 4 + 16  # the window, and what the connection holds
    got: list[int] = []
    while len(got) < 200:
        got.append((await talk.read()).frame_id)
    assert got == list(range(200))
    await sending


async def test_frames_are_read_no_further_than_the_window(rig: Rig, worker: TimedWorker) -> None:
    worker.gate.clear()
    talk = await Talk(rig, window=2).open()
    sent = 0

    async def film() -> None:
        nonlocal sent
        while True:
            await talk.put(raw=_large())
            sent += 1

    sending = asyncio.create_task(film())
    await becomes(lambda: worker.running == 2)
    await asyncio.sleep(0.5)
    assert 2 <= sent <= 2 + 4  # the window, and what the connection holds
    talk.call.cancel()
    await asyncio.gather(sending, return_exceptions=True)


def _large() -> types_pb2.RawImage:
    """8 MiB."""
    return types_pb2.RawImage(
        height=2048, width=4096, channel_order=types_pb2.CHANNEL_ORDER_GRAY, data=bytes(2**23)
    )


async def test_a_caller_who_leaves_frees_all(rig: Rig, worker: TimedWorker) -> None:
    talk = await Talk(rig, window=4).open()
    await talk.send(30, 30, 30)
    await becomes(lambda: worker.running == 3)
    assert gauge(rig, "yolopool_streams") == 1
    talk.call.cancel()
    await becomes(lambda: worker.running == 0, 5)
    assert gauge(rig, "yolopool_streams") == 0
    assert not rig.plane._services._detection._streams._turnstile._groups


async def test_so_does_one_who_leaves_while_answers_wait_for_him(
    rig: Rig, worker: TimedWorker
) -> None:
    worker.padding = "x" * 2**20
    talk = await Talk(rig, window=4).open()
    sending = asyncio.create_task(talk.send(*[0] * 100))
    await asyncio.sleep(0.5)
    talk.call.cancel()
    await becomes(lambda: gauge(rig, "yolopool_streams") == 0, 5)
    assert not rig.plane._services._detection._streams._turnstile._groups
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_stop_answers_what_is_on_its_way_and_says_why(
    rig: Rig, worker: TimedWorker
) -> None:
    talk = await Talk(rig, newest_only=True).open()
    await talk.send(0.5)
    await becomes(lambda: worker.running == 1)
    await talk.send(0)  # waits, and is for another control plane
    stopping = asyncio.create_task(rig.plane.stop())
    assert (await talk.read()).frame_id == 0
    error = await talk.failed()
    assert isinstance(error, errors.Draining)
    assert error.retryable
    assert "open a stream to another" in error.message
    await stopping


async def test_a_stop_leaves_what_a_full_queue_refused_to_another(
    rig: Rig, worker: TimedWorker
) -> None:
    worker.on_infer = errors.QueueFull("full", retry_after_s=0.01)
    talk = await Talk(rig).open()
    await talk.send(0.5)
    await becomes(lambda: worker.running == 1)
    stopping = asyncio.create_task(rig.plane.stop())
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await talk.call.read()  # no answer comes before
    assert isinstance(error_from_rpc(ended.value), errors.Draining)
    await stopping


async def test_a_stream_that_was_never_opened_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    async with Rig(tmp_path, drain_grace_s=600) as rig:
        streams = rig.plane._server._errors._streams
        others = len(streams)
        call = rig.detection.DetectStream()
        await becomes(lambda: len(streams) > others)
        async with asyncio.timeout(30):
            await rig.plane.stop()
        assert await call.read() is grpc.aio.EOF  # a client opens another


@pytest.mark.parametrize(
    ("opening", "reason", "word"),
    [
        ({"window": 65}, "INVALID_OPTION", "window"),
        ({"model": "a b"}, "INVALID_MODEL_REFERENCE", "a b"),
        ({"order": 9}, "INVALID_OPTION", "order"),
        ({"priority": 9}, "INVALID_OPTION", "priority"),
        ({"request_id": "x" * 97}, "INVALID_OPTION", "96"),
        ({"options": detection_pb2.DetectOptions(iou=2)}, "INVALID_OPTION", "iou"),
    ],
)
async def test_what_no_frame_could_have_ends_the_stream(
    rig: Rig, opening: dict[str, Any], reason: str, word: str
) -> None:
    error = await (await Talk(rig, **opening).open()).failed()
    assert error.reason == reason
    assert word in error.message


async def test_the_first_message_opens_and_no_other_does(rig: Rig, worker: TimedWorker) -> None:
    talk = Talk(rig)
    await talk.put(encoded=b"0")
    assert "opens it" in (await talk.failed()).message
    talk = await (await Talk(rig).open()).open()
    assert "only the first" in (await talk.failed()).message
    assert (await refused(_nothing(rig))).reason == "INVALID_OPTION"


async def _nothing(rig: Rig) -> None:
    call = Talk(rig).call
    await call.done_writing()
    async for _ in call:
        pass


async def test_other_doors_open_streams_too(rig: Rig, worker: TimedWorker) -> None:
    async def messages() -> AsyncIterator[detection_pb2.DetectStreamRequest]:
        opening = detection_pb2.StreamOpening(model="shapes")
        yield detection_pb2.DetectStreamRequest(opening=opening)
        for number in range(3):
            frame = detection_pb2.StreamFrame(frame_id=number, encoded=b"0")
            yield detection_pb2.DetectStreamRequest(frame=frame)

    answers = rig.plane.dispatch.stream(METHOD, messages(), Caller("test"))
    assert [answer.frame_id async for answer in answers] == [0, 1, 2]
