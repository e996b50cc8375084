"""Control planes and workers are killed and frozen under traffic: loaded models are answered."""

import pytest

from tests.chaos import faults
from tests.chaos.conftest import Play
from tests.chaos.trial import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize(
    "scenario",
    [
        faults.RECONCILER,
        faults.FROZEN_RECONCILER,
        faults.WORKER,
        faults.FROZEN_WORKER,
        faults.CONTROL_PLANES,
    ],
    ids=lambda one: one.fault.__name__,
)
async def test_callers_are_answered_while(scenario: Scenario, play: Play) -> None:
    await play(scenario)
