"""How a test runs a scenario: on a pool of its own, with a printed seed, in a few seconds."""

import os
import random
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.pool import Pool, Shape
from tests.chaos.traffic import Rate
from tests.chaos.trial import Pace, Report, Scenario, prepare, run

# To repeat a run: CHAOS_SEED=... pytest tests/chaos
SEED = "CHAOS_SEED"

Play = Callable[[Scenario, Shape, Pace], Awaitable[Report]]


@pytest.fixture
def play(capsys: pytest.CaptureFixture[str]) -> Play:
    """Runs a scenario and asserts that all that should hold does; the account is printed."""

    async def on_a_pool(scenario: Scenario, shape: Shape, pace: Pace) -> Report:
        seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
        # Short: the path of a unix socket inside may have at most 107 bytes.
        with tempfile.TemporaryDirectory(prefix="yp-") as folder:
            pool = Pool(shape, Path(folder))
            async with pool:
                await prepare(pool)
                report = await run(pool, scenario, pace, Rate(), seed)
                stubborn = await pool.stop()
            words = pool.last_words()
        with capsys.disabled():
            print(f"\n{report.text()}")  # noqa: T201 - what the run was for
        assert not report.failed, f"{report.text()}\n{words}"
        assert not stubborn, f"had to be killed at the end: {stubborn}"
        assert not pool.left_behind()
        return report

    return on_a_pool
