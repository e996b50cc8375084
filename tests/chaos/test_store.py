"""The store is stopped, emptied and failed over under traffic: loaded models are answered, and
the registry is afterwards what it was.
"""

import pytest

from tests.chaos import faults
from tests.chaos.conftest import Play
from tests.chaos.pool import Shape
from tests.chaos.trial import Pace, Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("scenario", "shape"),
    [
        (faults.STORE, Shape()),
        (faults.EMPTIED, Shape()),
        (faults.FAILOVER, Shape(sentinels=True)),
    ],
    ids=["stop_the_store", "empty_the_store", "fail_over"],
)
async def test_callers_are_answered_while(scenario: Scenario, shape: Shape, play: Play) -> None:
    await play(scenario, shape, Pace())
