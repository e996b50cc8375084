"""Models of a tenant never hold more than its share, and make room by its own alone."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling import explanation
from control_plane.scheduling.context import PlanContext, ProposedWants
from control_plane.scheduling.plan import plan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.access.tenant import Owners, Tenant, TenantLimits
from control_plane.types.command import Blocked, Command
from control_plane.types.policy import Placement
from control_plane.types.snapshot import Snapshot
from tests.unit.control_plane.fleets import (
    NOW,
    assigned,
    carried_out,
    deeds,
    key,
    one_wait,
    released,
    replica,
    snapshot,
    version,
    want,
    worker,
)
from yolopool.server.arrival_rates import ArrivalRates, Arrivals
from yolopool.vocabulary import Priority


def tenanted(before: Snapshot, *tenants: Tenant) -> Snapshot:
    held = {tenant.name: tenant for tenant in tenants}
    return replace(before, desired=replace(before.desired, tenants=held))


def half(name: str = "t", **fields: Any) -> Tenant:
    return Tenant(name, (f"{name}/*",), TenantLimits(memory_share=0.5), **fields)


def waits(commands: Iterable[Command]) -> list[Blocked]:
    return [command for command in commands if isinstance(command, Blocked)]


def test_a_model_beyond_the_share_waits_for_one_of_the_tenants_own() -> None:
    """Ten more bytes would fit the worker twice, and others hold less that is worth anything."""
    held = [replica("t/a", 40, used=1.0), replica("t/b", 10, used=9.0), replica("free", 10)]
    before = tenanted(
        snapshot([worker("w", 100, held)], [want(n) for n in ("t/a", "t/b", "free", "t/c")]), half()
    )
    commands = plan(before, NOW)
    assert released(commands) == ["w/t/a"]
    assert assigned(commands) == []
    assert one_wait(waits(commands)).reason == "TENANT_MEMORY"
    after = carried_out(before, deeds(commands))
    assert assigned(plan(after, NOW)) == ["w/t/c"]


def test_room_is_made_on_whichever_worker_the_least_valuable_is() -> None:
    workers = [
        worker("w1", 50, [replica("t/a", 30, rate=1.0)]),
        worker("w2", 50, [replica("t/b", 20)]),
    ]
    before = tenanted(snapshot(workers, [want("t/a"), want("t/b"), want("t/c")]), half())
    assert released(plan(before, NOW)) == ["w2/t/b"]


@pytest.mark.parametrize(
    ("held", "asked", "why", "final"),
    [
        ([replica("t/a", 45, outstanding=1)], 10, "in use", False),
        ([replica("t/a", 45, pinned=True)], 10, "pinned", True),
        ([], 60, "larger", True),
    ],
)
def test_why_there_is_no_room(held: list[Any], asked: int, why: str, final: bool) -> None:
    wants = [want("t/a", pinned=bool(held and held[0].pinned))] if held else []
    before = tenanted(
        snapshot([worker("w", 100, held)], [*wants, want("t/c")], [version("t/c", asked)]), half()
    )
    blocked = one_wait(waits(plan(before, NOW)))
    assert (blocked.reason, blocked.final) == ("TENANT_MEMORY", final)
    assert why in blocked.why
    assert type(blocked.as_error()).__name__ == "TenantMemory"
    (verdict,) = explanation.verdicts(before, version("t/c", asked), NOW)
    assert (verdict.feasible, verdict.reason) == (False, "TENANT_MEMORY")


def test_a_share_that_was_lowered_is_kept_again() -> None:
    held = [replica("t/a", 40, rate=2.0), replica("t/b", 30, rate=1.0), replica("free", 20)]
    before = tenanted(
        snapshot([worker("w", 100, held)], [want(n) for n in ("t/a", "t/b", "free")]), half()
    )
    commands = plan(before, NOW)
    assert released(commands) == ["w/t/b"]
    assert deeds(plan(carried_out(before, commands), NOW)) == []


@pytest.mark.parametrize(("share", "copies"), [(0.05, []), (0.2, ["w2/t/a"])])
def test_no_copy_is_added_beyond_the_share(share: float, copies: list[str]) -> None:
    busy = replica("t/a", 10, queue_ms=500.0, busy=0.9)
    before = snapshot([worker("w1", 100, [busy]), worker("w2", 100)], [want("t/a")])
    tenant = Tenant("t", ("t/*",), TenantLimits(memory_share=share))
    assert assigned(plan(tenanted(before, tenant), NOW)) == copies


@pytest.mark.parametrize(("share", "fetched"), [(0.05, []), (0.2, ["w/t/a"])])
def test_nothing_is_prefetched_beyond_the_share(share: float, fetched: list[str]) -> None:
    before = snapshot([worker("w", 100, tier=100)], [], [version("t/a")])
    before = replace(before, departed={key("t/a"): Arrivals(ArrivalRates(1.0, 1.0, 1.0), NOW)})
    tenant = Tenant("t", ("t/*",), TenantLimits(memory_share=share))
    assert assigned(plan(tenanted(before, tenant), NOW)) == fetched


def test_a_ceiling_holds_for_the_placement_of_the_tenants_models_too() -> None:
    urgent = version("t/a", placement=Placement(priority=Priority.INTERACTIVE))
    for ceiling in (Priority.INTERACTIVE, Priority.BULK):
        before = tenanted(snapshot([], [], [urgent]), half(priority_ceiling=ceiling))
        fleet = ProposedFleet.of(before, NOW)
        context = PlanContext(before, fleet, NOW, ProposedWants(before))
        assert context.priority(urgent) is ceiling


# --- pools ------------------------------------------------------------------------------------


def test_a_tenant_with_a_pool_is_on_its_workers_alone_and_nobody_else_is_there() -> None:
    workers = [worker("own", 30, labels={"pool": "t"}), worker("all", 500)]
    wants = [want(name, number) for number, name in enumerate(("t/a", "free", "s/b"))]
    before = tenanted(snapshot(workers, wants), Tenant("t", ("t/*",), pool="t"), Tenant("s"))
    commands = plan(before, NOW)
    assert sorted(assigned(commands)) == ["all/free", "all/s/b", "own/t/a"]
    verdicts = explanation.verdicts(before, version("free"), NOW)
    assert [(one.worker.id, one.feasible) for one in verdicts] == [("all", True), ("own", False)]
    assert "for the models of a tenant alone" in verdicts[1].why
    verdicts = explanation.verdicts(before, version("t/a"), NOW)
    assert [(one.worker.id, one.feasible) for one in verdicts] == [("all", False), ("own", True)]
    assert "has workers of its own: t" in verdicts[0].why


def test_what_is_misplaced_moves_once_it_is_loaded_where_it_belongs() -> None:
    workers = [
        worker("own", 30, [replica("free", 10)], labels={"pool": "t"}),
        worker("all", 500, [replica("t/a", 10)]),
    ]
    before = tenanted(
        snapshot(workers, [want("t/a"), want("free")]), Tenant("t", ("t/*",), pool="t")
    )
    first = plan(before, NOW)
    assert sorted(assigned(first)) == ["all/free", "own/t/a"]
    second = plan(carried_out(before, first), NOW)
    assert sorted(released(second)) == ["all/t/a", "own/free"]


def test_a_pool_without_workers_says_what_to_start() -> None:
    before = tenanted(snapshot([worker("all")], [want("t/a")]), Tenant("t", ("t/*",), pool="x"))
    blocked = one_wait(plan(before, NOW))
    assert blocked.reason == "NO_WORKER"
    assert "--labels pool=x" in blocked.why


# --- whatever is asked for ----------------------------------------------------------------------

names = st.sampled_from(["t/a", "t/b", "t/c", "u/a", "u/b", "free", "other"])


@given(
    st.lists(st.tuples(st.integers(20, 100), st.sampled_from([0, 150])), min_size=1, max_size=4),
    st.dictionaries(names, st.tuples(st.integers(1, 40), st.integers(1, 3), st.booleans())),
    st.floats(0.05, 1.0),
    st.floats(0.05, 1.0),
)
def test_no_plan_gives_a_tenant_more_than_its_share(
    budgets: list[tuple[int, int]],
    asked: dict[str, tuple[int, int, bool]],
    t_share: float,
    u_share: float,
) -> None:
    workers = [worker(f"w{n}", size, tier=tier) for n, (size, tier) in enumerate(budgets)]
    versions = [version(name, size) for name, (size, _, _) in asked.items()]
    wants = [
        want(name, number, replicas=copies, pinned=pinned)
        for number, (name, (_, copies, pinned)) in enumerate(asked.items())
    ]
    shares = {"t": t_share, "u": u_share}
    tenants = [
        Tenant(name, (f"{name}/*",), TenantLimits(memory_share=share))
        for name, share in shares.items()
    ]
    before = tenanted(snapshot(workers, wants, versions), *tenants)
    total = sum(max(size, tier) for size, tier in budgets)
    owners = Owners(before.desired.tenants)
    for _ in range(6):
        commands = plan(before, NOW)
        if not deeds(commands):
            break
        before = carried_out(before, commands)
        held = {"t": 0, "u": 0}
        for one in before.workers.values():
            for kept in one.replicas.values():
                owner = owners.of(kept.key.model)
                if owner is not None:
                    held[owner.name] += kept.weights_bytes
        assert all(held[name] <= shares[name] * total for name in held)
