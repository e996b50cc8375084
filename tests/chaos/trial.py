"""One scenario from calm to calm: traffic runs, a fault strikes, all is accounted for.

Nothing is raised for what the pool does wrong: that is a failed check in the report, beside the
accounts, so that a run of many scenarios shows all of them.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.harness.results import Check
from tests.chaos import invariants, setting
from tests.chaos.account import account
from tests.chaos.invariants import Listing
from tests.chaos.pool import DeviceKind, Pool, Probe, Shape, StoreKind, settled
from tests.chaos.report import DIRECT, REGISTRY, VIA, Report, judged
from tests.chaos.traffic import Door, Rate, Traffic
from tests.chaos.watch import Watch


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: of calm before the fault, that a process or the store stays away, without any
    failure before recovery is believed, and most that anything may take to heal. `parts`: of how
    many alike one fault tries each, such as keys of the store; 0: all.
    """

    calm_s: float = 1.0
    away_s: float = 4.0
    store_away_s: float = 4.0
    quiet_s: float = 2.5
    heal_s: float = 30.0
    parts: int = 2


class Trial:
    """What a fault may do: strike, wait for something to come true, note a check."""

    def __init__(
        self, pool: Pool, pace: Pace, rng: Random, traffic: Traffic, watch: Watch, before: Listing
    ) -> None:
        self.pool = pool
        self.pace = pace
        self.rng = rng
        self.watch = watch
        self.before = before
        self.struck_s = 0.0
        self.seconds: dict[str, float] = {}
        self.checks: list[Check] = []
        self._traffic = traffic

    @property
    def callers(self) -> int:
        """Requests in flight of those who never stop."""
        return self._traffic.callers

    def now(self) -> float:
        return self._traffic.now()

    def strike(self, *blows: Callable[[], None]) -> None:
        """The fault begins here."""
        self.struck_s = self.now()
        for blow in blows:
            blow()

    def check(self, what: str, holds: bool, detail: str) -> None:
        """Notes what was seen."""
        self.checks.append(Check(what, holds, detail))

    async def expect(self, what: str, probe: Probe, limit_s: float | None = None) -> bool:
        """Waits until a probe has no complaint; a check either way. Notes how long it took."""
        began = self.now()
        complaint = await settled(probe, self.pace.heal_s if limit_s is None else limit_s)
        took = f"after {self.now() - began:.1f} s"
        self.checks.append(Check(what, not complaint, f"{complaint} ({took})".strip()))
        return not complaint

    async def expect_whole(self) -> None:
        """All processes run and know each other."""
        await self.expect("all processes serve again", self.pool.incomplete)

    async def expect_load(self, door: str, what: str = "a load works") -> None:
        """A version that nobody holds is loaded, and dropped again, by one control plane."""
        client = self.pool.control_planes[door].client

        async def load() -> str:
            await client.load(setting.SPARE, timeout_s=setting.LOAD_S)
            await client.unload(setting.SPARE, timeout_s=setting.LOAD_S)
            return ""

        await self.expect(what, load)

    async def until_quiet(self) -> None:
        """Lets the callers go on until nothing has failed for a while, or too long."""
        until = self.now() + self.pace.heal_s
        calm_since = self.now()
        while self.now() < until:
            await asyncio.sleep(0.1)
            quiet = self.now() - self.pace.quiet_s
            if quiet >= calm_since and not self._traffic.failed_since(quiet):
                return


Fault = Callable[[Trial], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`store` and `ground`: what it needs of its pool; `supervised`: supervisors of its workers;
    `simulated`: devices that can be sabotaged. `direct`: callers of the workers too.
    `failures_allowed`: reasons that callers through control planes may get in spite of their
    second try, since nobody is there to ask.
    """

    name: str
    fault: Fault
    store: StoreKind = "one"
    ground: str = "loopback"
    supervised: bool = False
    simulated: bool = False
    direct: bool = False
    failures_allowed: frozenset[str] = frozenset()


def shape_of(scenarios: Sequence[Scenario], device: DeviceKind = "sim") -> Shape:
    """The pool that scenarios share. ValueError if they need different ones."""
    stores = {one.store for one in scenarios} - {"one"}
    grounds = {one.ground for one in scenarios} - {"loopback"}
    if len(stores) > 1 or len(grounds) > 1:
        raise ValueError(f"no pool is on {stores} and {grounds}: play them one by one")
    return Shape(
        device,
        store=next(iter(stores), "one"),
        ground=next(iter(grounds), "loopback"),
        supervised=any(one.supervised for one in scenarios),
    )


async def play(scenario: Scenario, shape: Shape, pace: Pace, rate: Rate, seed: int) -> Report:
    """Runs a scenario on a pool of its own; see `play_all`."""
    (report,) = await play_all((scenario,), shape, pace, rate, seed)
    return report


async def play_all(
    scenarios: Sequence[Scenario], shape: Shape, pace: Pace, rate: Rate, seed: int
) -> tuple[Report, ...]:
    """Runs scenarios in turn on one pool, in a folder that goes with it, as long as all holds; the
    last report has the end of the pool too.

    Raises AssertionError, with the last words of all processes, if the pool does not come up.
    """
    reports: list[Report] = []
    # Short: the path of a unix socket inside may have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        async with Pool(shape, Path(folder)) as pool:
            await setting.prepare(pool)
            for scenario in scenarios:
                reports.append(await run(pool, scenario, pace, rate, seed))
                if reports[-1].failed:
                    break
            stubborn = await pool.stop()
        last = reports.pop()
        words = "" if not last.failed else pool.last_words()
    left = pool.left_behind()
    ended = (
        Check("all processes end when told to", not stubborn, ", ".join(stubborn) or "none killed"),
        Check("no process is left", not left, f"pids {left}" if left else "none"),
    )
    return (*reports, replace(last, checks=(*last.checks, *ended), words=words))


async def run(pool: Pool, scenario: Scenario, pace: Pace, rate: Rate, seed: int) -> Report:
    """Runs a scenario on a pool that was prepared; it serves after, if all went well."""
    rng = Random(seed)
    pictures = await setting.pictures(pool)
    doors = pool.control_planes.values()
    callers: dict[str, Sequence[tuple[Door, str]]]
    callers = {VIA: [(door, model) for model in setting.MODELS for door in doors]}
    if scenario.direct:
        callers[DIRECT] = await setting.held(pool)
    before = await invariants.listing(pool, next(iter(pool.control_planes)))
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(Watch(pool))
        traffics = {
            who: await stack.enter_async_context(
                Traffic(routes, pictures, rate, rng, partial(setting.held, pool))
            )
            for who, routes in callers.items()
        }
        trial = Trial(pool, pace, rng, traffics[VIA], watch, before)
        await asyncio.sleep(pace.calm_s * rng.uniform(0.8, 1.2))
        await scenario.fault(trial)
        await trial.until_quiet()
        end_s = trial.now()
    accounts = {
        who: account(traffic.requests(), trial.struck_s, end_s, pace.quiet_s)
        for who, traffic in traffics.items()
    }
    await _close(trial)
    checks = [*judged(accounts, scenario.failures_allowed, rate.deadline_s), *trial.checks]
    return Report(scenario.name, seed, accounts, watch.retried_inside, trial.seconds, tuple(checks))


async def _close(trial: Trial) -> None:
    """The invariants, now that nobody calls."""
    pool = trial.pool
    await trial.expect(REGISTRY, lambda: _registry(trial))
    await trial.expect("observed is as desired", lambda: invariants.desired_differs(pool))
    await trial.expect("no stale token is obeyed", lambda: invariants.stale_token_obeyed(pool), 1.0)
    for what, complaint in invariants.never_seen(trial.watch).items():
        detail = complaint or f"{trial.watch.looks} looks"
        trial.checks.append(Check(what, not complaint, detail))


async def _registry(trial: Trial) -> str:
    lacks = await invariants.store_lacks(trial.pool, trial.before)
    return lacks or await invariants.registry_differs(trial.pool, trial.before)
