"""Fleets on a virtual clock, with faults drawn from a seed: what must hold whatever happens."""

import pytest

from benchmarks.simulation import clock
from benchmarks.simulation.clock import VirtualLoop
from benchmarks.simulation.shells import raising_shell_bugs
from control_plane.types.command import Command
from tests.simulation import faulty_fleet
from tests.simulation.faulty_fleet import EXPECTED, Run
from yolopool.vocabulary import ReplicaState


def carried_out(seed: int) -> tuple[Run, list[Command]]:
    async def main(loop: VirtualLoop) -> tuple[Run, list[Command]]:
        with raising_shell_bugs():
            return await faulty_fleet.run(loop, seed)

    return clock.run(main)


@pytest.mark.matrix(sample=6)
@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens(seed: int) -> None:
    run, left = carried_out(seed)
    scenario, fleet = run.scenario, run.fleet
    told = f"seed {seed}: {len(scenario.models)} models, {scenario.shapes}, {scenario.faults}"
    assert not run.wrong, told
    # Every request has an end, and only such as a fault explains.
    assert sorted(fleet.fates) == list(range(len(scenario.trace))), told
    reasons = {fate.error for fate in fleet.fates.values() if fate.error}
    assert reasons <= EXPECTED, told
    if not scenario.faults and not run.failed_loads:
        assert not reasons, told
    # Once nothing happens any more, what is desired is there, and nothing is left to do.
    assert not left, told
    pinned = fleet.brain.view.replicas(fleet.keys[scenario.pinned])
    assert any(r.pinned and r.state is ReplicaState.HOT for _, r in pinned), told


def test_a_seed_is_a_run() -> None:
    """Else a seed that was printed would not bring its failure back."""
    fates = [carried_out(3)[0].fleet.fates for _ in range(2)]
    assert fates[0] == fates[1]
