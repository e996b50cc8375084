"""Proposals reach their goals in a simulated queue; where none does, what is said to help does."""

import random

import pytest

from tests.unit.yolopool.tuning.simulated_queue import BATCHES, a_curve, simulated
from yolopool.tuning.pass_curve import PassCurve
from yolopool.tuning.pass_queue import Batched
from yolopool.tuning.proposal import Goal, propose, shortfall


def test_proposals_reach_their_goals_in_a_simulated_queue() -> None:
    chance = random.Random(25)
    reached = delayed = 0
    for _ in range(9):
        curve = a_curve(chance.uniform(0.002, 0.02), chance.uniform(0.0005, 0.01))
        rate = chance.uniform(0.1, 2.5) * curve.images_per_s(8)
        goal = Goal(chance.uniform(2, 12) * curve.usual_of(1), rate, 3, 0.001)
        found = propose(curve, goal)
        if found is None:
            continue
        reached += 1
        assert 1 <= found.replicas <= goal.devices
        assert found.p99_s <= goal.p99_s
        assert set(found.preferred_sizes) <= set(BATCHES)
        assert found.preferred_sizes[-1] == found.max_batch
        batched = Batched(found.max_batch, found.preferred_sizes)
        share = rate / found.replicas
        p99_s, busy = simulated(curve, batched, share, chance, delay_s=found.delay_s)
        assert p99_s + goal.beside_s <= goal.p99_s, found
        if found.delay_s:
            delayed += 1
            _, before = simulated(curve, batched, share, chance)
            assert busy < before, "a delay is worth it only where it saves the device work"
    assert reached >= 3
    assert delayed >= 1


def test_fewer_devices_than_proposed_do_not_reach_it() -> None:
    curve = a_curve(0.01, 0.005)
    goal = Goal(0.1, 1.5 * curve.images_per_s(8), 4)
    found = propose(curve, goal)
    assert found is not None
    assert found.replicas == 3
    assert propose(curve, Goal(goal.p99_s, goal.rate, 2)) is None


def test_what_would_reach_a_goal_does() -> None:
    curve, small = a_curve(0.01, 0.005, 1.2), a_curve(0.002, 0.001, 1.2)
    small = PassCurve("320x320", small.batches, small.usual_s, small.slow_s)
    goal = Goal(0.03, 2.0 * curve.images_per_s(1), 1)
    assert propose(curve, goal) is None
    short = shortfall({"640x640": curve, "320x320": small}, curve, goal)
    assert short.nearest is not None
    assert short.nearest.p99_s > goal.left_s
    assert short.shapes == ("320x320",)
    assert propose(curve, Goal(goal.p99_s, goal.rate, short.devices)) is not None
    assert propose(curve, Goal(goal.p99_s, goal.rate, short.devices - 1)) is None
    part = short.pass_s / curve.usual_of(1)
    assert 0 < part < 1
    faster = PassCurve(
        "", BATCHES, *(tuple(part * s for s in each) for each in (curve.usual_s, curve.slow_s))
    )
    assert propose(faster, goal) is not None


@pytest.mark.parametrize(
    ("goal", "devices", "has_nearest"),
    [
        (Goal(0.001, 5.0, 2), 0, True),  # a pass alone takes longer
        (Goal(0.2, 1e6, 2), 0, False),  # no fleet that is thought of answers so many
        (Goal(0.05, 5.0, 2, beside_s=0.05), 0, True),  # nothing is left for the pass
    ],
)
def test_nothing_is_promised_where_nothing_helps(
    goal: Goal, devices: int, has_nearest: bool
) -> None:
    curve = a_curve(0.01, 0.005)
    assert propose(curve, goal) is None
    short = shortfall({"640x640": curve}, curve, goal)
    assert (short.devices, short.shapes) == (devices, ())
    assert (short.nearest is not None) == has_nearest
