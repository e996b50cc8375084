"""Control planes share a quota: by demand, and never more than all of it together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.tenants.parts import EVEN, parts_of
from control_plane.types.access.usage import Part

demands = st.floats(0.0, 1000.0)


def exchange(held: dict[str, dict[str, Part]], plane: str, demand: float) -> None:
    held[plane] = parts_of(plane, {"t": demand}, held)


def share(held: dict[str, dict[str, Part]], plane: str) -> float:
    return held[plane]["t"].share


def test_who_is_alone_has_all() -> None:
    held: dict[str, dict[str, Part]] = {}
    for demand in (0.0, 7.0, 0.0):
        exchange(held, "a", demand)
        assert share(held, "a") == pytest.approx(1.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), demands), max_size=60))
def test_all_parts_together_are_at_most_the_quota_however_demand_moves(
    steps: list[tuple[str, float]],
) -> None:
    held: dict[str, dict[str, Part]] = {}
    for plane in "abc":  # they come one after the other, while the others have all of it
        exchange(held, plane, 0.0)
        assert sum(share(held, one) for one in held) <= 1.0 + EVEN + 1e-9
    for plane in "abc":
        exchange(held, plane, 0.0)
    for plane, demand in steps:
        exchange(held, plane, demand)
        assert sum(share(held, one) for one in held) <= 1.0 + 1e-9
        assert all(share(held, one) >= EVEN / 3 - 1e-9 for one in held)


@given(demands, demands, demands)
def test_two_rounds_later_each_has_its_part_by_demand(a: float, b: float, c: float) -> None:
    held: dict[str, dict[str, Part]] = {}
    wanted = {"a": a, "b": b, "c": c}
    for plane in "abc":
        exchange(held, plane, 0.0)
    for _ in range(3):
        for plane, demand in wanted.items():
            exchange(held, plane, demand)
    total = a + b + c
    for plane, demand in wanted.items():
        by_demand = demand / total if total else 1 / 3
        assert share(held, plane) == pytest.approx(EVEN / 3 + (1 - EVEN) * by_demand, abs=1e-6)


def test_a_tenant_that_others_have_not_seen_yet_is_shared_evenly() -> None:
    assert parts_of("a", {"new": 5.0}, {"b": {}})["new"].share == pytest.approx(0.5)
