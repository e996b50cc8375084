"""A pass of several images that fails is repeated one by one: whoever is not at fault is answered,
and a graph that takes no company runs alone from then on.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from worker.backends.base import BatchResult
from worker.batching.config import BatchingConfig
from worker.engine.engine import Engine
from worker.engine.request import Request
from worker.engine.runner import Outcome
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import DeadlineExceeded, Draining, InferenceFailed, NotAssigned, OutOfMemory

OPTIONS = NmsOptions((0.25,), 0.7, 300, agnostic=False)
REQUEST = Request("m@1", OPTIONS, priority=1, deadline=1e12, batching=BatchingConfig(4))
BAD = 66


def image(number: int) -> Any:
    return np.full((32, 32, 3), number, np.uint8)


def answer(number: int) -> Candidates:
    """Tells which image it is of."""
    return Candidates(
        np.full((1, 4), number, np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
    )


def number_of(outcome: Outcome) -> int:
    return int(outcome.candidates.xyxy[0, 0])


@dataclass
class Picky:
    """A model that refuses some passes in some stage; passes wait until they may go on."""

    at_fault: Callable[[list[int]], bool]
    stage_of_fault: str = "forward"
    error: Exception = field(default_factory=lambda: InferenceFailed("not these"))
    passes: list[list[int]] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    weights_bytes = 1
    private_bytes = 0
    uses_host_memory = False

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        return 0

    def stage(self, images: Any, options: Any) -> "PickyPass":
        numbers = [int(one[0, 0, 0]) for one in images]
        self.began.set()
        assert self.go_on.wait(20)
        self.passes.append(numbers)
        self.check("stage", numbers)
        return PickyPass(self, numbers)

    def check(self, stage: str, numbers: list[int]) -> None:
        if stage == self.stage_of_fault and self.at_fault(numbers):
            raise self.error

    def self_test(self) -> str:
        return ""

    def close(self) -> None:
        """There is nothing to give back."""


@dataclass
class PickyPass:
    """One pass of it."""

    model: Picky
    numbers: list[int]

    def forward(self) -> "PickyPass":
        self.model.check("forward", self.numbers)
        return self

    def finish(self) -> BatchResult:
        self.model.check("finish", self.numbers)
        answers = [answer(number) for number in self.numbers]
        if self.model.stage_of_fault == "answers" and self.model.at_fault(self.numbers):
            answers = answers[:1]
        return BatchResult(tuple(answers), 0.0, 0.0, 0.0)


@asynccontextmanager
async def engine_with(model: Picky) -> AsyncIterator[Engine]:
    engine = Engine(64, time.monotonic)
    engine.models["m@1"] = model
    engine.start()
    try:
        yield engine
    finally:
        model.go_on.set()
        await engine.stop(5)


async def together(
    engine: Engine, model: Picky, numbers: list[int], request: Request = REQUEST
) -> "list[asyncio.Task[Outcome]]":
    """Requests that wait together behind a first one, of image 1, which is under way."""
    model.began.clear()
    model.go_on.clear()
    tasks = [asyncio.create_task(engine.submit(REQUEST, image(1)))]
    await asyncio.to_thread(model.began.wait, 20)
    tasks += [asyncio.create_task(engine.submit(request, image(number))) for number in numbers]
    await asyncio.sleep(0)
    return tasks


def in_company(numbers: list[int]) -> bool:
    return len(numbers) > 1


@pytest.mark.parametrize("stage", ["stage", "forward", "finish", "answers"])
@pytest.mark.parametrize("error", [InferenceFailed("not these"), ValueError("of the runtime")])
async def test_images_that_fail_in_company_are_answered_alone_and_stay_alone(
    stage: str, error: Exception
) -> None:
    model = Picky(in_company, stage, error)
    async with engine_with(model) as engine:
        tasks = await together(engine, model, [2, 3, 4, 5])
        model.go_on.set()
        assert [number_of(await task) for task in tasks] == [1, 2, 3, 4, 5]
        tasks = await together(engine, model, [6, 7])
        model.go_on.set()
        assert [number_of(await task) for task in tasks] == [1, 6, 7]
        load = engine.load()
    assert model.passes == [[1], [2, 3, 4, 5], [2], [3], [4], [5], [1], [6], [7]]
    assert (load.outstanding, load.images_total) == (0, 8)


async def test_only_the_image_at_fault_fails_and_others_go_together_again() -> None:
    model = Picky(lambda numbers: BAD in numbers)
    async with engine_with(model) as engine:
        tasks = await together(engine, model, [2, BAD, 4])
        model.go_on.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes.pop(2), InferenceFailed)
        assert [number_of(one) for one in outcomes if isinstance(one, Outcome)] == [1, 2, 4]
        tasks = await together(engine, model, [5, 6])
        model.go_on.set()
        await asyncio.gather(*tasks)
    assert model.passes[-1] == [5, 6]


async def test_a_model_that_always_fails_says_so_to_each() -> None:
    model = Picky(lambda numbers: numbers != [1])
    async with engine_with(model) as engine:
        tasks = await together(engine, model, [2, 3])
        model.go_on.set()
        outcomes = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes)
    assert model.passes == [[1], [2, 3], [2], [3]]


async def test_a_pass_that_is_filled_up_is_repeated_without_its_filling() -> None:
    model = Picky(in_company)
    fixed = replace(REQUEST, batching=BatchingConfig(4, fixed=True))
    async with engine_with(model) as engine:
        model.go_on.set()
        assert number_of(await engine.submit(fixed, image(2))) == 2
    assert [len(numbers) for numbers in model.passes] == [4, 1]


async def test_memory_that_runs_out_while_a_pass_is_finished_is_tried_alone() -> None:
    model = Picky(in_company, "finish", OutOfMemory("for several"))
    async with engine_with(model) as engine:
        tasks = await together(engine, model, [2, 3])
        model.go_on.set()
        assert [number_of(await task) for task in tasks] == [1, 2, 3]


async def test_what_is_to_run_again_keeps_its_deadline() -> None:
    now = 0.0
    late = replace(REQUEST, deadline=10.0)

    def fault(numbers: list[int]) -> bool:
        nonlocal now
        if len(numbers) > 1:
            now = 11.0  # the pass that failed took so long
        return len(numbers) > 1

    model = Picky(fault)
    engine = Engine(64, lambda: now)
    engine.models["m@1"] = model
    engine.start()
    tasks = await together(engine, model, [2, 3], late)
    model.go_on.set()
    outcomes = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes), outcomes
    await engine.stop(5)


@pytest.mark.parametrize("how", ["forced out", "stopped"])
async def test_what_can_not_run_again_hears_why_it_failed(how: str) -> None:
    engine_holder: list[Engine] = []

    def fault(numbers: list[int]) -> bool:
        if len(numbers) > 1:
            if how == "forced out":
                engine_holder[0].refuse("m@1", NotAssigned("forced out"))
            else:
                engine_holder[0]._stopping = True  # as `stop` does
        return len(numbers) > 1

    model = Picky(fault, "finish")
    async with engine_with(model) as engine:
        engine_holder.append(engine)
        tasks = await together(engine, model, [2, 3])
        model.go_on.set()
        outcomes = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert all(isinstance(one, InferenceFailed | Draining) for one in outcomes), outcomes


async def test_a_caller_that_left_is_not_run_again() -> None:
    model = Picky(in_company)
    async with engine_with(model) as engine:
        tasks = await together(engine, model, [2, 3])
        held = threading.Event()
        stage = model.stage

        def waits(images: Any, options: Any) -> Any:
            if len(images) > 1:
                assert held.wait(20)
            return stage(images, options)

        model.stage = waits  # type: ignore[method-assign]  # holds the pass of two
        model.go_on.set()
        await tasks[0]
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        held.set()
        assert number_of(await tasks[2]) == 3
        assert engine.load().outstanding == 0
    assert [2] not in model.passes
