"""Control planes and workers are killed and frozen, and the store is stopped, emptied and failed
over, all under traffic: loaded models are answered, and the registry is afterwards what it was.
"""

import pytest

from tests.chaos import faults
from tests.chaos.conftest import PlayAll
from tests.chaos.trial import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize(
    "scenarios",
    [
        # Of a process and of the store, on one pool: to start it takes as long as a fault.
        (faults.RECONCILER, faults.STORE),
        (faults.FROZEN_RECONCILER, faults.EMPTIED),
        (faults.WORKER, faults.FAILOVER),
        (faults.FROZEN_WORKER, faults.EMPTIED),
        (faults.CONTROL_PLANES, faults.STORE),
    ],
    ids=lambda pair: "-and-".join(one.fault.__name__ for one in pair),
)
async def test_callers_are_answered_while(
    scenarios: tuple[Scenario, ...], play_all: PlayAll
) -> None:
    await play_all(scenarios)
