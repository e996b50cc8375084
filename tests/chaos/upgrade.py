"""From one release to another under load: each process ends and starts again as the other, one by
one, and both releases share a store and callers meanwhile.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.chaos import invariants
from tests.chaos.faults import kill_the_reconciler
from tests.chaos.trial import Scenario, Trial

# Set for a process by `turn`; the folder of the release before, once it is unpacked.
Release = Path | None


async def turn(trial: Trial, names: Sequence[str], release: Release) -> None:
    """Each of them is told to end, as an upgrade does, and starts as another release (None: this
    one); the pool is whole, and loads, before the next.
    """
    for name in names:
        process = trial.pool.processes[name]
        await process.stop()
        process.release = release
        process.start()
        await trial.expect(f"the pool is whole after {name}", trial.pool.incomplete)


def order(trial: Trial, leader: str) -> list[str]:
    """Of an upgrade: followers, the leader, workers, the importer."""
    planes = sorted(trial.pool.control_planes, key=lambda name: name == leader)
    return [*planes, *trial.pool.workers, "importer"]


async def upgrade(trial: Trial) -> None:
    """All processes become those of this release."""
    trial.strike()
    await turn(trial, order(trial, await trial.pool.reconciler()), None)
    for name in trial.pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")


async def upgrade_a_part(trial: Trial) -> None:
    """One control plane and one worker become those of this release; either control plane loads on
    workers of either, reads what the other wrote, and leads.
    """
    pool = trial.pool
    trial.strike()
    await turn(trial, ["control-plane-1", "worker-1"], None)
    for name in pool.control_planes:
        await trial.expect_load(name, f"a load works by {name}")
    await trial.expect(
        "both list the same", lambda: invariants.registry_differs(pool, trial.before)
    )
    # The lead goes to the other release, and back.
    for _ in range(2):
        await kill_the_reconciler(trial)


def downgrade_to(release: Path) -> Scenario:
    """All processes become those of the release before again."""

    async def downgrade(trial: Trial) -> None:
        trial.strike()
        await turn(trial, order(trial, await trial.pool.reconciler()), release)
        for name in trial.pool.control_planes:
            await trial.expect_load(name, f"a load works by {name}")

    return Scenario("a rolling downgrade", downgrade)


PART = Scenario("two releases side by side", upgrade_a_part)
ALL = Scenario("a rolling upgrade", upgrade)
