"""How a test plays scenarios: on a pool of its own, in a few seconds, with a printed seed."""

import os
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.chaos import trial
from tests.chaos.pool import GROUNDS
from tests.chaos.traffic import Rate
from tests.chaos.trial import Pace, Scenario

# To repeat a run: YOLOPOOL_CHAOS_SEED=... pytest tests/chaos
SEED = "YOLOPOOL_CHAOS_SEED"

PlayAll = Callable[[Sequence[Scenario]], Awaitable[None]]


@pytest.fixture
def play_all(capsys: pytest.CaptureFixture[str]) -> PlayAll:
    """Prints the accounts of scenarios that share a pool (and what it must have), and asserts that
    all that should hold does.
    """

    async def on_a_pool(scenarios: Sequence[Scenario]) -> None:
        seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
        shape = trial.shape_of(scenarios)
        if lacks := GROUNDS[shape.ground].lacks():
            pytest.skip(f"this machine lacks {lacks}")
        # Workers and supervisors heal sooner than leases run out.
        pace = Pace(calm_s=0.4, quiet_s=1.0) if shape.supervised else Pace()
        reports = await trial.play_all(scenarios, shape, pace, Rate(), seed)
        for report in reports:
            with capsys.disabled():
                print(f"\n{report.text()}")  # noqa: T201 - what the run was for
            assert not report.failed, f"{report.text()}\n{report.words}"

    return on_a_pool
