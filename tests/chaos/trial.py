"""One scenario from calm to calm: traffic runs, a fault strikes, all is accounted for.

Nothing is raised for what the pool does wrong: that is a failed check in the report, beside the
accounts, so that a run of many scenarios shows all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from random import Random

from benchmarks.harness import dataset, results
from benchmarks.harness.results import Check, Row
from tests.chaos import invariants
from tests.chaos.account import Account, account
from tests.chaos.doors import WorkerDoor
from tests.chaos.invariants import Listing
from tests.chaos.pictures import Box, Picture, asked, boxes_of, grey
from tests.chaos.pool import Pool, Probe, settled
from tests.chaos.traffic import Rate, Traffic
from tests.chaos.watch import Watch

MODELS, SPARE = ("chaos/one", "chaos/two", "chaos/three"), "chaos/spare"
REPLICAS = 2
IMAGE_SIZE = 320
GREYS = range(20, 220)
LOAD_S = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: of calm before the fault, that what is frozen or stopped stays so, without any
    failure before recovery is believed, and most that anything may take to heal.
    """

    calm_s: float = 1.5
    away_s: float = 4.0
    quiet_s: float = 3.0
    heal_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """Accounts by who called, what was measured beside them, and what held."""

    scenario: str
    seed: int
    accounts: dict[str, Account]
    retried_inside: int
    seconds: dict[str, float]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(one for one in self.checks if not one.passed)

    def rows(self) -> tuple[Row, ...]:
        """A row a kind of caller."""
        return tuple(self._row(who, one) for who, one in self.accounts.items())

    def text(self) -> str:
        """For people."""
        lines = [f"{self.scenario}, seed {self.seed}", results.table(self.rows())]
        lines += [f"{'ok  ' if c.passed else 'FAIL'} {c.name}: {c.detail}" for c in self.checks]
        return "\n".join(lines)

    def _row(self, who: str, one: Account) -> Row:
        reasons = {"failed": _words(one.failed), "bare_failed": _words(one.bare_failed)}
        inside = self.retried_inside if who == VIA else None
        row = {**asdict(one), **reasons, "retried_inside": inside}
        return {"scenario": self.scenario, "callers": who, **row, **self.seconds}


VIA, DIRECT = "through control planes", "at the workers"


class Trial:
    """What a fault may do: strike, wait for something to come true, note a check."""

    def __init__(self, pool: Pool, pace: Pace, rng: Random, traffic: Traffic, watch: Watch) -> None:
        self.pool = pool
        self.pace = pace
        self.rng = rng
        self.watch = watch
        self.before: Listing = {}
        self.struck_s = 0.0
        self.seconds: dict[str, float] = {}
        self.checks: list[Check] = []
        self._traffic = traffic

    def now(self) -> float:
        return self._traffic.now()

    def strike(self, *blows: Callable[[], None]) -> None:
        """The fault begins here."""
        self.struck_s = self.now()
        for blow in blows:
            blow()

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
            await client.load(SPARE, timeout_s=LOAD_S)
            await client.unload(SPARE, timeout_s=LOAD_S)
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
    """`direct`: callers of the workers too. `failures_allowed`: reasons that callers through
    control planes may get in spite of their second try, since nobody is there to ask.
    """

    name: str
    fault: Fault
    direct: bool = False
    failures_allowed: frozenset[str] = frozenset()


async def run(pool: Pool, scenario: Scenario, pace: Pace, rate: Rate, seed: int) -> Report:
    """Runs a scenario on a pool that was `prepare`d. The pool serves after, if all went well."""
    rng = Random(seed)
    pictures = await _pictures(pool)
    callers = {VIA: [(door, m) for m in MODELS for door in pool.control_planes.values()]}
    if scenario.direct:
        callers[DIRECT] = await _held(pool)  # type: ignore[assignment] # both are doors
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(Watch(pool))
        before = await invariants.listing(pool, "control-plane-0")
        traffics = {
            who: await stack.enter_async_context(Traffic(routes, pictures, rate, rng))
            for who, routes in callers.items()
        }
        trial = Trial(pool, pace, rng, traffics[VIA], watch)
        trial.before = before
        await asyncio.sleep(pace.calm_s * rng.uniform(0.8, 1.2))
        await scenario.fault(trial)
        await trial.until_quiet()
        end_s = trial.now()
    accounts = {
        who: account(traffic.requests(), trial.struck_s, end_s, pace.quiet_s)
        for who, traffic in traffics.items()
    }
    await _close(trial)
    checks = [*_judged(accounts, scenario, rate), *trial.checks]
    return Report(scenario.name, seed, accounts, watch.retried_inside, trial.seconds, tuple(checks))


async def prepare(pool: Pool) -> None:
    """Registers the models and loads those that will be asked, each twice."""
    client = pool.control_planes["control-plane-0"].client
    for name in (*MODELS, SPARE):
        version = await client.register(name, dataset.DEMO_WEIGHTS, image_size=IMAGE_SIZE)
        assert version.state == "READY", f"{version.name}: {version.reason} {version.message}"
    for name in MODELS:
        await client.load(name, replicas=REPLICAS)
    complaint = await settled(lambda: invariants.desired_differs(pool), LOAD_S)
    assert not complaint, complaint


async def _close(trial: Trial) -> None:
    """The invariants, now that nobody calls."""
    pool = trial.pool
    await trial.expect("the registry is as before", lambda: _registry(trial))
    await trial.expect("observed is as desired", lambda: invariants.desired_differs(pool))
    await trial.expect("no stale token is obeyed", lambda: invariants.stale_token_obeyed(pool), 1.0)
    for what, complaint in invariants.never_seen(trial.watch).items():
        detail = complaint or f"{trial.watch.looks} looks"
        trial.checks.append(Check(what, not complaint, detail))


async def _registry(trial: Trial) -> str:
    lacks = await invariants.store_lacks(trial.pool, trial.before)
    return lacks or await invariants.registry_differs(trial.pool, trial.before)


def _judged(accounts: dict[str, Account], scenario: Scenario, rate: Rate) -> Sequence[Check]:
    checks = []
    for who, one in accounts.items():
        allowed = scenario.failures_allowed if who == VIA else frozenset()
        failed = {reason: n for reason, n in one.failed.items() if reason not in allowed}
        late = one.worst_s > rate.deadline_s + 1.0
        recovered = "never" if one.recovery_s is None else f"{one.recovery_s:.1f} s"
        checks += [
            Check(f"{who}: every request has an outcome", one.lost == 0, f"{one.lost} lost"),
            Check(f"{who}: no wrong boxes", one.wrong == 0, f"{one.wrong} of {one.ok}"),
            Check(f"{who}: loaded models answer", not failed, _words(failed) or "none failed"),
            Check(f"{who}: deadlines end requests", not late, f"worst {one.worst_s:.2f} s"),
            Check(f"{who}: failures end", one.recovery_s is not None, recovered),
        ]
    return checks


async def _pictures(pool: Pool) -> tuple[Picture, ...]:
    door = next(iter(pool.control_planes.values()))
    model = (await door.client.model(MODELS[0])).versions[0]
    if pool.shape.device == "sim":
        return grey(GREYS, len(model.class_names))

    async def ask(image: bytes) -> tuple[Box, ...]:
        return boxes_of(await door.ask(MODELS[0], image, LOAD_S))

    return await asked(dataset.encoded(), ask)


async def _held(pool: Pool) -> list[tuple[WorkerDoor, str]]:
    """Every worker with every model it holds, as a direct caller would have resolved them."""
    return [
        (door, replica.version.model)
        for door in pool.workers.values()
        for replica in (await door.inventory()).worker.replicas
    ]


def _words(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())
