"""What leaves though nobody needs its room: unwanted, idle, surplus, or not at home. Pure."""

from collections.abc import Iterable

from control_plane.scheduling.context import PlanContext, is_loaded
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.scheduling.scaling import copies_to_keep
from control_plane.types.command import Assign, Release
from control_plane.types.desired import Want
from control_plane.types.policy import ResidencyMode
from control_plane.types.version import VersionKey
from yolopool.vocabulary import ReplicaState


def unpin(context: PlanContext, workers: Iterable[ProposedWorker]) -> Iterable[Assign]:
    """Pins that nobody wants any more end first: others may need their room on the device."""
    for proposed in workers:
        for replica in context.replicas(proposed):
            want = context.wants.get(replica.key) if replica.pinned and is_loaded(replica) else None
            if want is not None and not want.pinned:
                yield context.pin(proposed, want, "it was unpinned")


def release_idle(context: PlanContext, wants: Iterable[Want]) -> Iterable[Release]:
    """Releases of versions that are kept on demand only and were not asked for lately."""
    for want in wants:
        limit_s = _idle_limit_s(context, want)
        if limit_s is None:
            continue
        places = context.present(want.key)
        # With its want all replicas go: one that is still in use keeps the others.
        if not places or not all(_is_idle(context, proposed, want, limit_s) for proposed in places):
            continue
        for proposed in places:
            why = f"idle for {limit_s:g} s: it is kept on demand only"
            yield context.release(proposed, want.key, why, forget=True, reason="IDLE")


def _idle_limit_s(context: PlanContext, want: Want) -> float | None:
    version = context.version(want.key)
    if version is None or want.pinned:
        return None
    residency = version.given.residency
    on_demand = residency.mode is ResidencyMode.ON_DEMAND
    return residency.idle_release_s if on_demand else None


def _is_idle(context: PlanContext, proposed: ProposedWorker, want: Want, limit_s: float) -> bool:
    replica = proposed.replicas[want.key]
    idle_s = context.snapshot.unix_s - max(proposed.last_used(replica), want.since_unix_s)
    return is_loaded(replica) and not proposed.outstanding(replica) and idle_s >= limit_s


def release_unschedulable(
    context: PlanContext, workers: Iterable[ProposedWorker]
) -> Iterable[Release]:
    """Releases of versions that pinned ones leave no room for on their device."""
    for proposed in workers:
        for key in proposed.stranded():
            replica = proposed.replicas[key]
            if not is_loaded(replica) or proposed.outstanding(replica):
                continue
            why = "pinned models leave no room for it on the device"
            if context.is_pinned(replica):
                yield context.release(proposed, key, why, reason="STRANDED")
            else:
                yield context.give_up(proposed, key, why, "STRANDED")


def release_unwanted(context: PlanContext, workers: Iterable[ProposedWorker]) -> Iterable[Release]:
    """Releases of versions that nobody wants; one that is being loaded ends its load first."""
    for proposed in workers:
        for replica in context.replicas(proposed):
            if replica.key not in context.wants and replica.state is not ReplicaState.ASSIGNED:
                deleted = replica.key not in context.snapshot.desired.versions
                why = "it was deleted" if deleted else "nobody wants it"
                yield context.release(proposed, replica.key, why)


def scale_down(
    context: PlanContext, want: Want, holders: list[ProposedWorker]
) -> Iterable[Release]:
    """Releases of copies beyond what is wanted; those that are still loading count not."""
    loaded = [b for b in holders if is_loaded(b.replicas[want.key])]
    if len(loaded) <= want.replicas:
        return
    keep = copies_to_keep(context, want, [b.replicas[want.key] for b in loaded])
    for proposed in sorted(loaded, key=lambda b: _standing(context, want, b))[: len(loaded) - keep]:
        why = f"{len(loaded)} replicas are there and {keep} are wanted"
        yield context.release(proposed, want.key, why, reason="SURPLUS")


def _standing(
    context: PlanContext, want: Want, proposed: ProposedWorker
) -> tuple[bool, bool, bool, float, float, str]:
    """Order in which copies leave: the first first."""
    replica = proposed.replicas[want.key]
    return (
        want.pinned and replica.pinned,
        proposed.outstanding(replica) > 0,
        replica.state is ReplicaState.HOT,
        proposed.last_used(replica),
        -proposed.crowding,
        proposed.worker.id,
    )


def migrate(context: PlanContext, want: Want, holders: list[ProposedWorker]) -> Iterable[Release]:
    """Releases of replicas where they may not be any more, once enough are where they may."""
    holders = [b for b in holders if context.is_at(b, want.key)]
    strangers = [b for b in holders if not context.is_eligible(want.key, b)]
    at_home = [b.replicas[want.key] for b in holders if b not in strangers]
    if not strangers or sum(map(is_loaded, at_home)) < want.replicas:
        return
    for proposed in strangers:
        replica = proposed.replicas[want.key]
        if is_loaded(replica):
            why = _why_homeless(context, want.key, proposed)
            yield context.release(proposed, want.key, why, reason="MOVED")


def _why_homeless(context: PlanContext, key: VersionKey, proposed: ProposedWorker) -> str:
    if context.snapshot.desired.is_cordoned(proposed.worker):
        return "its worker is to drain, and it is loaded elsewhere"
    version = context.version(key)
    asked = version.given.placement.says if version is not None else ""
    return f"it may only be where {asked}, and it is loaded there"
