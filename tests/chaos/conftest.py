"""How a test plays a scenario: on a pool of its own, in a few seconds, with a printed seed."""

import os
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos import trial
from tests.chaos.pool import Shape
from tests.chaos.traffic import Rate
from tests.chaos.trial import Pace, Scenario

# To repeat a run: YOLOPOOL_CHAOS_SEED=... pytest tests/chaos
SEED = "YOLOPOOL_CHAOS_SEED"

Play = Callable[[Scenario], Awaitable[None]]


@pytest.fixture
def play(capsys: pytest.CaptureFixture[str]) -> Play:
    """Prints the account of a scenario, and asserts that all that should hold does."""

    async def on_a_pool(scenario: Scenario) -> None:
        seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
        shape = Shape(sentinels=scenario.sentinels)
        report = await trial.play(scenario, shape, Pace(), Rate(), seed)
        with capsys.disabled():
            print(f"\n{report.text()}")  # noqa: T201 - what the run was for
        assert not report.failed, f"{report.text()}\n{report.words}"

    return on_a_pool
