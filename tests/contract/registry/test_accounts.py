"""Parts of quotas and usage, on the specification in memory and on two real servers."""

import asyncio
from collections.abc import Mapping
from typing import Any

from control_plane.metrics.exposition import Metrics
from control_plane.store.registry import Registry
from control_plane.tenants.admission import Admission
from control_plane.tenants.exchange import QuotaExchange, days_until
from control_plane.types.access.tenant import Tenant, TenantLimits
from control_plane.types.access.usage import Part, Usage
from control_plane.view.view import View
from tests.contract.registry.samples import Case
from yolopool.errors import RegistryUnavailable, TenantDay, TenantRate
from yolopool.server.clock import Clock

DAY = "2026-03-01"
SOME = Usage(refused=1, images=2, bytes=3 * 10**12, device_s=0.25, gb_hours=1.5)


async def test_parts_are_taken_one_after_the_other(case: Case) -> None:
    one, two = case.registry.accounts, case.other.accounts
    revision, known = await one.parts()
    assert known == {}
    assert await one.take_parts("a", {"t": Part(1.0, 0.5)}, revision, 60.0)
    assert not await two.take_parts("b", {"t": Part(1.0, 0.5)}, revision, 60.0)
    revision, known = await two.parts()
    assert known == {"a": {"t": Part(1.0, 0.5)}}
    assert await two.take_parts("b", {}, revision, 60.0)
    assert (await one.parts()).parts == {"a": {"t": Part(1.0, 0.5)}, "b": {}}
    await one.drop_parts("a")
    revision, known = await two.parts()
    assert known == {"b": {}}
    assert await two.take_parts("revision", {"t": Part(0.0, 0.1)}, revision, 0.05)
    await asyncio.sleep(0.1)
    assert (await one.parts()).parts == {"b": {}}


async def test_usage_is_added_once_and_by_day(case: Case) -> None:
    one, two = case.registry.accounts, case.other.accounts
    assert await one.add_usage("a", 0, DAY, {"t": SOME, "": SOME}) == {"t": SOME, "": SOME}
    assert await one.add_usage("a", 0, DAY, {"t": SOME}) == {"t": SOME, "": SOME}  # a repeat
    assert (await two.add_usage("b", 0, DAY, {"t": SOME}))["t"] == SOME.plus(SOME)
    assert (await one.add_usage("a", 1, DAY, {}))["t"] == SOME.plus(SOME)
    await one.add_usage("a", 2, "2026-03-02", {"u": SOME})
    days = ["2026-03-02", DAY, "2026-02-28"]
    used = await two.usage(days)
    assert used == {"2026-03-02": {"u": SOME}, DAY: {"t": SOME.plus(SOME), "": SOME}}
    assert await two.drop_usage("t", days) == 1
    assert await two.drop_usage("t", days) == 0
    assert await one.usage([DAY]) == {DAY: {"": SOME}}


class Plane:
    """The admission and the exchange of a control plane, on a clock that the test sets."""

    now = 1000.0

    def __init__(self, name: str, registry: Registry) -> None:
        clock = Clock(lambda: Plane.now, lambda: Plane.now + 86_400.0 * 20_000)
        self.view = View(clock)
        self.admission = Admission(self.view, clock)
        self.registry = registry
        self.exchange = QuotaExchange(
            name, self.admission, registry, self.view, Metrics(), lambda: False, clock
        )

    async def begin(self) -> None:
        self.view.take_desired(await self.registry.desired())
        await self.exchange.once()

    def asked(self, times: int) -> int:
        """How many of so many are let in now."""
        let_in = 0
        for _ in range(times):
            try:
                with self.admission.open("t", 10):
                    let_in += 1
            except (TenantRate, TenantDay):
                pass
        return let_in


async def planes(case: Case, **limits: float) -> tuple[Plane, Plane]:
    tenant = Tenant("t", limits=TenantLimits(**limits))  # type: ignore[arg-type]
    await case.registry.put_tenant(tenant)
    one, two = Plane("one", case.registry), Plane("two", case.other)
    await one.begin()
    await two.begin()
    return one, two


async def used_today(case: Case) -> Mapping[str, Usage]:
    (day,) = days_until(Plane.now + 86_400.0 * 20_000, 1)
    return (await case.registry.accounts.usage([day]))[day]


async def test_a_rate_is_kept_by_two_control_planes_however_demand_moves(case: Case) -> None:
    """The bound of docs/tenants.md: in T seconds rate x (T + 1), one more a control plane, and a
    tenth of the rate for the second in which the second one came.
    """
    rate, seconds, let_in = 20.0, 24, []
    one, two = await planes(case, requests_per_s=rate)
    for second in range(seconds):
        busy, idle = (one, two) if second // 6 % 2 else (two, one)
        for _ in range(10):
            Plane.now += 0.1
            let_in.append((Plane.now, busy.asked(20) + idle.asked(1 if second % 3 else 0)))
        await one.exchange.once()
        await two.exchange.once()
    for first in range(len(let_in)):
        total = 0
        for at, count in let_in[first:]:
            total += count
            window_s = at - let_in[first][0]
            assert total <= rate * (window_s + 1) + 2 + 0.1 * rate
    whole = sum(count for _, count in let_in)
    assert whole >= 0.7 * rate * seconds  # and demand that moved finds its part again


async def test_demand_has_its_part_after_two_exchanges(case: Case) -> None:
    one, two = await planes(case, requests_per_s=100.0)
    for _ in range(6):
        Plane.now += 1.0
        one.asked(90)
        await one.exchange.once()
        await two.exchange.once()
    assert one.admission.quotas["t"].share > 0.9
    assert two.admission.quotas["t"].share >= 0.05 - 1e-9
    await one.exchange.close()
    Plane.now += 1.0
    await two.exchange.once()
    assert two.admission.quotas["t"].share == 1.0


async def test_a_day_is_counted_by_all_and_goes_on_after_a_restart(case: Case) -> None:
    one, two = await planes(case, images_per_day=50)
    assert one.asked(30) == 30
    await one.exchange.once()
    await two.exchange.once()
    assert two.asked(30) == 20
    await two.exchange.close()
    again = Plane("three", case.other)
    await again.begin()
    assert again.asked(5) == 0
    await again.exchange.once()
    of_day = await used_today(case)
    assert (of_day["t"].images, of_day["t"].refused, of_day["t"].bytes) == (50, 15, 500)


async def test_what_was_used_while_the_store_was_away_is_told_once_it_answers(case: Case) -> None:
    one, _ = await planes(case, images_per_day=50)
    accounts: Any = case.registry.accounts
    kept = accounts.add_usage
    one.asked(3)

    async def lost(*args: Any) -> Any:
        await kept(*args)
        raise RegistryUnavailable("the answer was lost")

    accounts.add_usage = lost
    await one.exchange.once()
    one.asked(4)
    await one.exchange.once()
    accounts.add_usage = kept
    await one.exchange.once()
    await one.exchange.once()
    of_day = await used_today(case)
    assert of_day["t"].images == 7
    assert one.asked(100) == 43
