"""What metrics show of the fleet, gathered where it is known. No decisions."""

from control_plane.leader.election import LeaderElection
from control_plane.metrics.fleet_look import FleetLook
from control_plane.reconcile.executor import Executor
from control_plane.view.view import View
from yolopool.server.clock import Clock


def fleet_look(view: View, election: LeaderElection, executor: Executor, clock: Clock) -> FleetLook:
    """As of now. Its maps are live: use it before the next await."""
    return FleetLook(
        now=clock.monotonic(),
        workers=view.workers,
        loads=view.loads,
        versions=view.desired.versions,
        models=view.catalogue.count(),
        held=view.holders,
        waits=view.waits,
        registry_available=view.registry_available,
        leads=election.is_leader,
        lease_left_s=election.left_s,
        commands=executor.in_flight,
        crash_looping=view.crash_looping(),
    )
