"""Processes are killed and frozen; the store is stopped, frozen, slow, full, read-only, moved,
emptied whole and in part; hosts lose their network, disk, memory, descriptors, time, certificates.
All under traffic: loaded models are answered, and the registry is afterwards what it was.
"""

import pytest

from tests.chaos import faults, host_faults, network_faults, store_faults
from tests.chaos.conftest import PlayAll
from tests.chaos.trial import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# Those of a row share a pool, one after the other: to start one takes as long as a fault.
ROWS = (
    (faults.RECONCILER, faults.STORE),
    (faults.FROZEN_RECONCILER, store_faults.READ_ONLY),
    (faults.FOLLOWER, store_faults.NO_MEMORY),
    (faults.FROZEN_FOLLOWER, store_faults.FROZEN),
    (faults.WORKER, faults.FAILOVER),
    (faults.FROZEN_WORKER, faults.EMPTIED),
    (faults.CONTROL_PLANES, store_faults.KILLED),
    (store_faults.PART,),
    (store_faults.SLOW, store_faults.MOVED),
    (network_faults.WORKER_CABLE, network_faults.STORE_CABLE),
    (network_faults.RECONCILER_CABLE, network_faults.LOSS),
    (network_faults.PARTITION, network_faults.DELAY),
    (network_faults.NO_WORKERS,),
    (host_faults.FULL,),
    (host_faults.ALL_CLOCKS,),
    (host_faults.ONE_CLOCK,),
    (host_faults.DESCRIPTORS,),
    (host_faults.MEMORY,),
    (host_faults.EXPIRED,),
)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize(
    "scenarios", ROWS, ids=lambda row: "-and-".join(one.fault.__name__ for one in row)
)
async def test_callers_are_answered_while(
    scenarios: tuple[Scenario, ...], play_all: PlayAll
) -> None:
    await play_all(scenarios)


def test_every_fault_is_in_a_row() -> None:
    told = [one.name for row in ROWS for one in row]
    known = (*faults.EVERY, *store_faults.EVERY, *network_faults.EVERY, *host_faults.EVERY)
    assert sorted(told) == sorted(one.name for one in known)
