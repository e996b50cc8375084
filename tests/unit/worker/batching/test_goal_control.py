"""The largest batch and the delay follow a p99 goal, over simulated arrivals at one device."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from worker.batching.config import BatchingConfig
from worker.batching.goal_control import GoalControl, Took


@dataclass
class Device:
    """Runs what waits when it is free, and tells the control what each request took."""

    allowed: BatchingConfig
    pass_s: Callable[[int], float]
    chance: random.Random
    control: GoalControl = field(init=False)
    free: float = 0.0
    now: float = 0.0
    # When it changed, and to what.
    changes: list[tuple[float, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.control = GoalControl(self.allowed, 0.0)

    def run(self, rate: float, seconds: float) -> list[float]:
        """What the requests of so many seconds took."""
        ends = self.now + seconds
        arrived: list[float] = []
        took: list[float] = []
        coming = self.now + self.chance.expovariate(rate)
        while self.now < ends:
            batching = self.control.batching(self.allowed)
            assert batching.max_batch <= self.allowed.max_batch
            assert batching.max_delay_s <= self.allowed.max_delay_s
            if not arrived:
                arrived, coming = [coming], coming + self.chance.expovariate(rate)
            begins = max(self.free, arrived[0])
            limit = max(begins, arrived[0] + batching.max_delay_s)
            while coming <= (begins if len(arrived) >= batching.full else limit):
                begins = max(begins, coming) if len(arrived) < batching.full else begins
                arrived, coming = [*arrived, coming], coming + self.chance.expovariate(rate)
            if len(arrived) < batching.full:
                begins = limit
            size = batching.cut(len(arrived), batching.max_batch)
            pass_s = self.pass_s(size) * self.chance.uniform(0.98, 1.05)
            self.free = self.now = begins + pass_s
            for at in arrived[:size]:
                took.append(self.free - at)
                self._tell(Took(self.free - at, begins - at, pass_s, size))
            arrived = arrived[size:]
        return took

    def _tell(self, took: Took) -> None:
        before = self.control.adapted
        self.control.answered(took, self.now)
        after = self.control.adapted
        if (before.max_batch, before.max_delay_s) != (after.max_batch, after.max_delay_s):
            self.changes.append((self.now, after.max_batch, after.max_delay_s))


def p99(took: list[float]) -> float:
    return sorted(took)[int(0.99 * len(took))]


def line(fixed_s: float, image_s: float) -> Callable[[int], float]:
    return lambda images: fixed_s + image_s * images


@pytest.mark.parametrize("seed", range(3))
def test_it_reaches_what_can_be_reached_and_stays_there(seed: int) -> None:
    chance = random.Random(seed)
    pass_s = line(chance.uniform(0.002, 0.006), chance.uniform(0.0003, 0.003))
    goal_s = 5 * pass_s(2)
    allowed = BatchingConfig(16, (1, 2, 4, 8, 16), goal_s, p99_goal_s=goal_s)
    device = Device(allowed, pass_s, chance)
    rate = 0.5 * 2 / pass_s(2)
    device.run(rate, 60)
    begins = len(device.changes)
    took = device.run(rate, 120)
    assert p99(took) <= goal_s
    assert len(device.changes) - begins <= 8, device.changes
    assert not device.control.adapted.is_out_of_reach


def test_a_batch_too_large_for_the_goal_is_made_smaller_and_larger_again() -> None:
    pass_s = line(0.001, 0.004)
    allowed = BatchingConfig(16, p99_goal_s=0.04)
    device = Device(allowed, pass_s, random.Random(1))
    # Bursts fill passes of 16, which take 65 ms.
    for _ in range(20):
        device.run(3000, 0.02)
        device.run(60, 2.0)
    assert device.control.adapted.max_batch < 16
    assert device.changes, "it said nothing of what it changed"
    quiet = device.run(60, 60)
    assert p99(quiet) <= 0.04


def test_a_delay_is_given_up_for_the_goal_and_taken_again() -> None:
    allowed = BatchingConfig(8, max_delay_s=0.05, p99_goal_s=0.03)
    device = Device(allowed, line(0.002, 0.0005), random.Random(2))
    took = device.run(80, 120)
    assert 0 < device.control.adapted.max_delay_s < 0.03
    assert p99(took[len(took) // 2 :]) <= 0.03
    late = [at for at, _, _ in device.changes if at > 60]
    assert len(late) <= 4, device.changes


def test_a_goal_below_a_pass_is_out_of_reach_and_is_said_once_it_is_not() -> None:
    allowed = BatchingConfig(4, p99_goal_s=0.01)
    slow = Device(allowed, line(0.02, 0.001), random.Random(3))
    told = []
    for seconds in (30, 90):  # of few windows nobody can say
        slow.run(20, seconds)
        told.append(slow.control.adapted.is_out_of_reach)
    assert told == [False, True]
    changed = len(slow.changes)
    slow.run(20, 120)
    assert len(slow.changes) == changed, "it changes nothing that would not help"
    slow.pass_s = line(0.002, 0.0005)
    slow.run(20, 60)
    after = slow.control.adapted
    assert (after.is_out_of_reach, after.p99_s < 0.01) == (False, True)


def test_nothing_is_decided_by_few_requests_or_by_those_from_before_a_change() -> None:
    allowed = BatchingConfig(8, p99_goal_s=0.01)
    control = GoalControl(allowed, 0.0)
    for number in range(15):
        control.answered(Took(1.0, 0.5, 0.5, 8), 2.0 * number)
    assert control.adapted.max_batch == 8
    for number in range(300):
        control.answered(Took(0.05, 0.0, 0.05, 8), 40.0 + number / 100)
    changed = control.adapted
    assert changed.p99_s == pytest.approx(0.05)
    control.answered(Took(1e3, 0.0, 0.05, 8), 44.0)
    assert control.adapted is changed


def test_what_is_allowed_bounds_it_at_once() -> None:
    allowed = BatchingConfig(16, (4, 8, 16), 0.01, p99_goal_s=0.1)
    control = GoalControl(allowed, 0.0)
    assert control.batching(allowed) == allowed
    assert control.batching(allowed.within(8)) == allowed.within(8)
    assert control.batching(allowed) == allowed
    fewer = BatchingConfig(16, (4, 8, 16), 0.002, p99_goal_s=0.1)
    assert control.batching(fewer) == fewer
