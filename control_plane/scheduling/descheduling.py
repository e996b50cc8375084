"""What leaves though nobody needs its room: unwanted, idle, surplus, or not at home. Pure."""

from collections.abc import Iterable

from control_plane.scheduling.context import Desk, is_loaded
from control_plane.scheduling.proposed_worker import Bench
from control_plane.scheduling.scaling import copies_to_keep
from control_plane.types.command import Assign, Release
from control_plane.types.desired import Want
from control_plane.types.policy import ResidencyMode
from control_plane.types.version import VersionKey
from yolopool.vocabulary import ReplicaState


def unpinned(desk: Desk, benches: Iterable[Bench]) -> Iterable[Assign]:
    """Pins that nobody wants any more end first: others may need their room on the device."""
    for bench in benches:
        for seat in desk.seats(bench):
            want = desk.wants.get(seat.key) if seat.pinned and is_loaded(seat) else None
            if want is not None and not want.pinned:
                yield desk.pin(bench, want, "it was unpinned")


def idle(desk: Desk, wants: Iterable[Want]) -> Iterable[Release]:
    """Releases of versions that are kept on demand only and were not asked for lately."""
    for want in wants:
        limit_s = _idle_limit_s(desk, want)
        if limit_s is None:
            continue
        places = desk.present(want.key)
        # With its want all replicas go: one that is still in use keeps the others.
        if not places or not all(_is_idle(desk, bench, want, limit_s) for bench in places):
            continue
        for bench in places:
            why = f"idle for {limit_s:g} s: it is kept on demand only"
            yield desk.release(bench, want.key, why, forget=True, reason="IDLE")


def _idle_limit_s(desk: Desk, want: Want) -> float | None:
    version = desk.version(want.key)
    if version is None or want.pinned:
        return None
    residency = version.given.residency
    on_demand = residency.mode is ResidencyMode.ON_DEMAND
    return residency.idle_release_s if on_demand else None


def _is_idle(desk: Desk, bench: Bench, want: Want, limit_s: float) -> bool:
    seat = bench.seats[want.key]
    idle_s = desk.snapshot.unix_s - max(bench.last_used(seat), want.since_unix_s)
    return is_loaded(seat) and not bench.outstanding(seat) and idle_s >= limit_s


def stranded(desk: Desk, benches: Iterable[Bench]) -> Iterable[Release]:
    """Releases of versions that pinned ones leave no room for on their device."""
    for bench in benches:
        for key in bench.stranded():
            seat = bench.seats[key]
            if not is_loaded(seat) or bench.outstanding(seat):
                continue
            why = "pinned models leave no room for it on the device"
            if desk.is_pinned(seat):
                yield desk.release(bench, key, why, reason="STRANDED")
            else:
                yield desk.give_up(bench, key, why, "STRANDED")


def unwanted(desk: Desk, benches: Iterable[Bench]) -> Iterable[Release]:
    """Releases of versions that nobody wants; one that is being loaded ends its load first."""
    for bench in benches:
        for seat in desk.seats(bench):
            if seat.key not in desk.wants and seat.state is not ReplicaState.ASSIGNED:
                deleted = seat.key not in desk.snapshot.desired.versions
                why = "it was deleted" if deleted else "nobody wants it"
                yield desk.release(bench, seat.key, why)


def surplus(desk: Desk, want: Want, holders: list[Bench]) -> Iterable[Release]:
    """Releases of copies beyond what is wanted; those that are still loading count not."""
    loaded = [b for b in holders if is_loaded(b.seats[want.key])]
    if len(loaded) <= want.replicas:
        return
    keep = copies_to_keep(desk, want, [b.seats[want.key] for b in loaded])
    for bench in sorted(loaded, key=lambda b: _standing(desk, want, b))[: len(loaded) - keep]:
        why = f"{len(loaded)} replicas are there and {keep} are wanted"
        yield desk.release(bench, want.key, why, reason="SURPLUS")


def _standing(desk: Desk, want: Want, bench: Bench) -> tuple[bool, bool, bool, float, float, str]:
    """Order in which copies leave: the first first."""
    seat = bench.seats[want.key]
    return (
        want.pinned and seat.pinned,
        bench.outstanding(seat) > 0,
        seat.state is ReplicaState.HOT,
        bench.last_used(seat),
        -bench.crowding,
        bench.worker.id,
    )


def homeless(desk: Desk, want: Want, holders: list[Bench]) -> Iterable[Release]:
    """Releases of replicas where they may not be any more, once enough are where they may."""
    holders = [b for b in holders if desk.is_at(b, want.key)]
    strangers = [b for b in holders if not desk.at_home(want.key, b)]
    at_home = [b.seats[want.key] for b in holders if b not in strangers]
    if not strangers or sum(map(is_loaded, at_home)) < want.replicas:
        return
    for bench in strangers:
        seat = bench.seats[want.key]
        if is_loaded(seat):
            why = _why_homeless(desk, want.key, bench)
            yield desk.release(bench, want.key, why, reason="MOVED")


def _why_homeless(desk: Desk, key: VersionKey, bench: Bench) -> str:
    if desk.snapshot.desired.is_cordoned(bench.worker):
        return "its worker is to drain, and it is loaded elsewhere"
    version = desk.version(key)
    asked = version.given.placement.says if version is not None else ""
    return f"it may only be where {asked}, and it is loaded there"
