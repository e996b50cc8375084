"""Two releases in one pool: side by side on one store, and from one to the other under load, each
process ended as an upgrade ends it and started again as the other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos import invariants
from tests.chaos.trial import Scenario, Trial

PLANES, WORKERS = ("control-plane-0", "control-plane-1"), ("worker-0", "worker-1", "worker-2")
ALL = (*PLANES, *WORKERS, "importer")
# Every model is on two of the three workers, so that both releases serve it.
HALF = ("control-plane-0", "worker-0", "worker-2")


def of(release: Path, names: Sequence[str]) -> Mapping[str, Path]:
    """For a pool's shape."""
    return dict.fromkeys(names, release)


async def share(trial: Trial) -> None:
    """Either control plane loads on workers of either, and lists what the other wrote; then the one
    that leads ends, and the other release leads.
    """
    pool = trial.pool
    trial.strike()
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")
    same = "both list the same"
    await trial.expect(same, lambda: invariants.registry_differs(pool, trial.before))
    leader = await pool.reconciler()
    (other,) = (name for name in pool.control_planes if name != leader)
    await pool.processes[leader].stop()

    async def leads() -> str:
        return "" if await pool.decides(other) else "it does not"

    if await trial.expect("the other release leads", leads):
        trial.seconds["takeover_s"] = trial.now() - trial.struck_s
    await trial.expect_load(other, "and loads")
    pool.processes[leader].start()
    await trial.expect_whole()


def turn_to(release: Path | None, name: str) -> Scenario:
    """All processes become those of a release (None: this one): followers, the leader, workers,
    the importer. The pool is whole, and loads, after each.
    """

    async def turn(trial: Trial) -> None:
        pool = trial.pool
        trial.strike()
        leader = await pool.reconciler()
        planes = sorted(pool.control_planes, key=lambda plane: plane == leader)
        for one in (*planes, *WORKERS, "importer"):
            process = pool.processes[one]
            await process.stop()
            process.release = release
            process.start()
            await trial.expect(f"the pool is whole after {one}", pool.incomplete)
            await trial.expect_load(planes[0])

    return Scenario(name, turn)


SHARED = Scenario("two releases side by side", share)
