"""Stages of a pass overlap, in order and bounded; a failure in any is answered; a model is closed
only when nothing uses it.
"""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from worker.backends.base import BatchResult
from worker.batching.admission import AdmissionRequest
from worker.batching.config import BatchingConfig
from worker.concurrency.reply import Reply
from worker.engine.engine import MAX_IN_FLIGHT, Engine
from worker.engine.request import Request
from worker.engine.runner import Outcome
from worker.postprocess.outputs import Candidates, NmsOptions, not_finite
from yolopool.errors import (
    DeadlineUnmeetable,
    Draining,
    InferenceFailed,
    InvalidOption,
    NotAssigned,
    OutOfMemory,
    YolopoolError,
)

OPTIONS = NmsOptions((0.25,), 0.7, 300, agnostic=False)
LIMIT_S = 20.0


def image(number: int) -> Any:
    return np.full((32, 32, 3), number, np.uint8)


def candidates(number: int) -> Candidates:
    """An answer that tells which image it is of."""
    return Candidates(
        np.full((1, 4), number, np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
    )


class Staged:
    """A device of one image a pass, whose stages wait until they may end and say what they did."""

    weights_bytes = 1
    private_bytes = 0
    uses_host_memory = False

    def __init__(self) -> None:
        self.may_finish = threading.Semaphore(0)
        self.happened: list[tuple[str, int]] = []
        self.is_new = threading.Condition()
        self.fail: Callable[[str, int], None] = lambda stage, number: None
        self.under_way = self.most_under_way = 0
        # Of images that are not answered by `candidates`.
        self.answers: dict[int, Candidates] = {}

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        return 0

    def stage(self, images: Any, options: Any) -> "Pass":
        number = int(images[0][0, 0, 0])
        self.say("stage", number, 1)
        return Pass(self, number)

    def say(self, stage: str, number: int, more: int = 0) -> None:
        with self.is_new:
            self.under_way += more
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.happened.append((stage, number))
            self.is_new.notify_all()
        self.fail(stage, number)

    async def until(self, stage: str, number: int) -> None:
        def wait() -> bool:
            with self.is_new:
                return self.is_new.wait_for(lambda: (stage, number) in self.happened, LIMIT_S)

        assert await asyncio.to_thread(wait), f"no {stage} of {number}: {self.happened}"

    def self_test(self) -> str:
        return ""

    def close(self) -> None:
        self.say("close", 0)


@dataclass
class Pass:
    """One pass of it."""

    model: Staged
    number: int

    def forward(self) -> "Pass":
        self.model.say("forward", self.number)
        return self

    def finish(self) -> BatchResult:
        self.model.say("finish", self.number)
        assert self.model.may_finish.acquire(timeout=LIMIT_S)
        self.model.say("finished", self.number, -1)
        answer = self.model.answers.get(self.number, candidates(self.number))
        return BatchResult((answer,), 0.0, 0.0, 0.0)


@asynccontextmanager
async def engine_of(
    model: Staged, clock: Callable[[], float] = time.monotonic, first_pass: int = 1
) -> AsyncIterator[Engine]:
    engine = Engine(64, clock, first_pass)
    engine.models["m@1"] = model
    engine.start()
    try:
        yield engine
    finally:
        for _ in range(100):
            model.may_finish.release()
        await engine.stop(LIMIT_S)


def detect(engine: Engine, number: int, deadline: float = 1e12) -> "asyncio.Task[Any]":
    return asyncio.create_task(
        engine.submit(Request("m@1", OPTIONS, 1, deadline, BatchingConfig(1)), image(number))
    )


def _note(answered: list[int], number: int, task: "asyncio.Task[Any]") -> None:
    answered.append(number)


async def test_a_pass_runs_while_the_one_before_is_finished() -> None:
    model = Staged()
    async with engine_of(model) as engine:
        tasks = [detect(engine, number) for number in (1, 2)]
        await model.until("finish", 1)
        await model.until("forward", 2)
        assert ("finished", 1) not in model.happened
        assert not any(task.done() for task in tasks)
        assert engine.load().outstanding == 2
        model.may_finish.release(2)
        outcomes = await asyncio.gather(*tasks)
    assert [outcome.candidates.xyxy[0, 0] for outcome in outcomes] == [1, 2]


async def test_a_pass_that_is_not_finished_is_what_the_device_is_at() -> None:
    """Else one that hangs on a device that runs by itself would be seen by nobody."""
    model = Staged()
    async with engine_of(model) as engine:
        tasks = [detect(engine, number) for number in (1, 2)]
        await model.until("forward", 2)
        job = asyncio.create_task(engine.job(lambda: None))
        running = engine.running()
        assert running is not None
        assert running.what == "a pass of m@1"
        model.may_finish.release(2)
        await asyncio.gather(job, *tasks)
    assert engine.running() is None


async def test_no_more_is_under_way_than_may_be_and_all_in_order() -> None:
    model = Staged()
    async with engine_of(model) as engine:
        answered: list[int] = []
        tasks = [detect(engine, number) for number in range(1, 9)]
        for number, task in enumerate(tasks, 1):
            task.add_done_callback(partial(_note, answered, number))
        await model.until("forward", MAX_IN_FLIGHT)
        # A job is a way to see that the device thread has nothing it may do: it waits for both.
        job = asyncio.create_task(engine.job(lambda: list(model.happened)))
        await asyncio.sleep(0)
        model.may_finish.release(MAX_IN_FLIGHT)
        seen = await job
        assert ("stage", MAX_IN_FLIGHT + 1) not in seen
        model.may_finish.release(6)
        await asyncio.gather(*tasks)
    assert model.most_under_way == MAX_IN_FLIGHT
    assert answered == list(range(1, 9))
    for stage in ("stage", "forward", "finish", "finished"):
        assert [number for what, number in model.happened if what == stage] == list(range(1, 9))


async def test_who_would_be_late_gives_way_and_hears_it_before_its_deadline() -> None:
    model = Staged()
    async with engine_of(model, clock=lambda: 0.0) as engine:
        for _ in range(3):
            engine.note_pass("m@1", (32, 32), 1, 1.0)
        under_way = [detect(engine, number) for number in (1, 2)]
        await model.until("forward", 2)
        # By then the device is at the second pass.
        late, patient = detect(engine, 3, deadline=0.5), detect(engine, 4)
        model.may_finish.release()
        with pytest.raises(DeadlineUnmeetable, match="others wait who can be in time"):
            await asyncio.wait_for(late, LIMIT_S)
        assert not patient.done()
        model.may_finish.release(2)
        await asyncio.gather(*under_way, patient)
    assert ("stage", 3) not in model.happened


async def test_a_pass_that_is_done_early_brings_forward_what_is_behind_it() -> None:
    model, now = Staged(), [0.0]
    async with engine_of(model, clock=lambda: now[0]) as engine:
        engine.note_pass("m@1", (32, 32), 1, 1.0)
        first, second = detect(engine, 1), detect(engine, 2)
        await model.until("forward", 2)
        assert engine.load().wait_s == 2.0
        now[0] = 0.25
        model.may_finish.release()
        await asyncio.wait_for(first, LIMIT_S)
        assert engine.load().wait_s == 1.0
        model.may_finish.release()
        await second


async def test_a_model_is_closed_when_nothing_of_it_is_under_way() -> None:
    model = Staged()
    async with engine_of(model) as engine:
        tasks = [detect(engine, number) for number in (1, 2)]
        await model.until("forward", 2)
        closing = asyncio.create_task(engine.job(model.close))
        late = detect(engine, 3)
        await asyncio.sleep(0)
        assert ("close", 0) not in model.happened
        model.may_finish.release(3)
        await asyncio.gather(closing, late, *tasks)
    order = [what for what in model.happened if what[0] in ("close", "finished")]
    # Jobs go before batches that wait, however full the pipeline was.
    assert order == [("finished", 1), ("finished", 2), ("close", 0), ("finished", 3)]


@pytest.mark.parametrize("stage", ["stage", "forward", "finish"])
@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (RuntimeError("injected"), InferenceFailed),
        (InvalidOption("injected"), InvalidOption),
    ],
)
async def test_a_failure_is_answered_to_its_ticket_alone(
    stage: str, raised: Exception, told: type[YolopoolError]
) -> None:
    model = Staged()

    def fail(now: str, number: int) -> None:
        if (now, number) == (stage, 2):
            raise raised

    model.fail = fail
    async with engine_of(model) as engine:
        model.may_finish.release(3)
        tasks = [detect(engine, number) for number in (1, 2, 3)]
        with pytest.raises(told):
            await tasks[1]
        others = [await tasks[0], await tasks[2]]
        assert [outcome.candidates.xyxy[0, 0] for outcome in others] == [1, 3]
        # Counted out, and the threads go on.
        assert engine.load().outstanding == 0
        assert engine.passes("m@1") == 2
        model.may_finish.release()
        await detect(engine, 4)


async def test_an_answer_that_is_not_finite_fails_its_own_ticket() -> None:
    model = Staged()
    model.answers[2] = not_finite()
    model.may_finish.release(3)
    async with engine_of(model) as engine:
        tasks = [detect(engine, number) for number in (1, 2, 3)]
        with pytest.raises(InferenceFailed, match="not finite"):
            await tasks[1]
        others = [await tasks[0], await tasks[2]]
    assert [outcome.candidates.xyxy[0, 0] for outcome in others] == [1, 3]


async def test_out_of_memory_is_tried_again_when_the_pass_before_has_left_the_device() -> None:
    model = Staged()
    refused = 0

    def fail(now: str, number: int) -> None:
        nonlocal refused
        if (now, number) == ("forward", 2) and ("finished", 1) not in model.happened:
            refused += 1
            raise OutOfMemory("injected")

    model.fail = fail
    async with engine_of(model, first_pass=70) as engine:
        tasks = [detect(engine, number) for number in (1, 2)]
        await model.until("forward", 2)
        model.may_finish.release(2)
        outcomes = await asyncio.gather(*tasks)
    assert refused == 1
    assert [outcome.candidates.xyxy[0, 0] for outcome in outcomes] == [1, 2]
    # Another run of a pass is another pass.
    assert [(one.batch, one.retries) for one in outcomes] == [(70, 0), (72, 1)]


async def test_who_gave_its_place_back_while_its_image_was_decoded_is_not_queued() -> None:
    async with engine_of(Staged()) as engine:
        ask = AdmissionRequest("m@1", 1, 1e12, time.monotonic(), BatchingConfig(1))
        request = Request("m@1", OPTIONS, 1, 1e12, BatchingConfig(1), engine.reserve(ask))
        engine.free(request.place)
        reply = Reply[Outcome]()
        engine.put(request, image(1), reply)
        assert engine.load().outstanding == 0
        assert not engine.demand()


async def test_what_comes_to_a_version_that_is_refused_hears_why_until_it_is_accepted() -> None:
    model = Staged()
    async with engine_of(model) as engine:
        model.may_finish.release(2)
        ask = AdmissionRequest("m@1", 1, 1e12, time.monotonic(), BatchingConfig(1))
        # Its image is decoded while the version is refused.
        place = engine.reserve(ask)
        engine.refuse("m@1", OutOfMemory("it does not fit"))
        reply = Reply[Outcome]()
        with pytest.raises(OutOfMemory, match="it does not fit"):
            engine.put(Request("m@1", OPTIONS, 1, 1e12, BatchingConfig(1), place), image(1), reply)
        engine.free(place)
        engine.accept("m@1")
        await detect(engine, 1)
        engine.refuse("m@1", NotAssigned("it leaves"))
        for number in (2, 3):
            with pytest.raises(NotAssigned, match="it leaves"):
                await detect(engine, number)
        engine.forget("m@1")
        await detect(engine, 4)


async def test_a_stop_answers_what_is_under_way_and_refuses_what_waits() -> None:
    model = Staged()
    engine = Engine(64, time.monotonic)
    engine.models["m@1"] = model
    engine.start()
    tasks = [detect(engine, number) for number in (1, 2, 3)]
    await model.until("forward", 2)
    stopping = asyncio.create_task(engine.stop(LIMIT_S))
    assert isinstance((await asyncio.gather(tasks[2], return_exceptions=True))[0], Draining)
    model.may_finish.release(2)
    outcomes = await asyncio.gather(*tasks[:2])
    await stopping
    assert [outcome.candidates.xyxy[0, 0] for outcome in outcomes] == [1, 2]
    assert not {"device", "finish"} & {thread.name for thread in threading.enumerate()}


async def test_a_job_that_fails_keeps_nothing() -> None:
    """Not until Python's collector runs: its error's frames would hold the reply and the call."""

    class Weights:
        pass

    def fail(weights: Weights) -> None:
        raise MemoryError("no room for the weights")

    weights = Weights()
    kept = weakref.ref(weights)
    gc.collect()
    gc.disable()
    try:
        async with engine_of(Staged()) as engine:
            with pytest.raises(MemoryError) as failed:
                await engine.job(partial(fail, weights))
            del failed, weights
            await engine.job(lambda: None)  # the device thread's frame is a new one
            assert kept() is None
    finally:
        gc.enable()
