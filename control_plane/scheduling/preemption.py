"""Who leaves so that another can come: the least worth, and as few as it takes. Pure."""

from collections.abc import Collection, Sequence
from heapq import nsmallest

from control_plane.scheduling import reasons
from control_plane.scheduling.context import Desk, is_loaded
from control_plane.scheduling.proposed_worker import PRESENT, Bench, size_of
from control_plane.scheduling.retention import load_s
from control_plane.types.command import Assign, Release, Wait
from control_plane.types.desired import Want
from control_plane.types.footprint import Footprint
from control_plane.types.worker import Replica

# A newcomer waits so many times what loading it takes for one worth so much less to be idle.
PATIENCE_PER_LOAD, MUCH_LESS = 2.0, 0.9
# Of the workers that may make room, those with the least to lose are looked at closely.
MOST_OFFERS = 16


def by_making_room(
    desk: Desk, want: Want, willing: Sequence[Bench], sizes: dict[str, Footprint]
) -> list[Release | Assign | Wait]:
    """Releases and the Assign that needs them, where least is lost; or a Wait."""
    offers = []
    # Of a small fleet all.
    for bench in nsmallest(MOST_OFFERS, willing, key=lambda b: (b.floor, b.worker.id)):
        size = sizes[bench.worker.id]
        victims = victims_of(desk, want, bench, size)
        if victims:
            lost = sum(desk.worth(bench, seat) * seat.weights_bytes for seat in victims)
            last = max(bench.last_used(seat) for seat in victims)
            offers.append((lost, last, len(victims), bench.worker.id, bench, victims))
    if not offers:
        return [no_room(desk, want, willing, sizes)]
    *_, bench, victims = min(offers, key=lambda offer: offer[:4])
    if _is_better_to_wait(desk, want, bench, victims):
        return [reasons.in_use(want.key)]
    releases = desk.make_room(want, bench, victims)
    return [*releases, desk.assign(want, bench, sizes[bench.worker.id], "after making room")]


def _is_better_to_wait(desk: Desk, want: Want, bench: Bench, victims: Sequence[Replica]) -> bool:
    """Whether one worth much less is only just in use, and this want has not waited long: the
    place that models asked for rarely share is not to be widened for a moment's work.
    """
    if want.pinned:
        return False
    version = desk.version(want.key)
    cost_s = load_s(version, bench.worker.build, desk.snapshot.footprints) if version else 0
    since = min(want.since_unix_s, desk.snapshot.waiting.get(want.key, want.since_unix_s))
    if desk.snapshot.unix_s - since > PATIENCE_PER_LOAD * cost_s:
        return False
    dearest = max(desk.worth(bench, seat) for seat in victims)
    return any(
        desk.worth(bench, seat) < MUCH_LESS * dearest
        for seat in bench.seats.values()
        if seat not in victims and seat.state in PRESENT and not desk.is_pinned(seat)
    )


def victims_of(
    desk: Desk, want: Want, bench: Bench, size: Footprint, beside: Collection[Replica] = ()
) -> list[Replica]:
    """Fewest of the seats of least worth whose leaving, as if those `beside` had left too, makes
    room; empty: none do.
    """

    def is_room(gone: list[Replica]) -> bool:
        without = {seat.key for seat in (*beside, *gone)}
        return bench.fits(size, pinned=want.pinned, without=without)

    chosen: list[Replica] = []
    for seat in sorted(
        (s for s in bench.seats.values() if may_leave(desk, bench, s, want)),
        key=lambda s: (
            not desk.served(bench, s),
            desk.worth(bench, s),
            bench.last_used(s),
            s.key,
        ),
    ):
        chosen.append(seat)
        if is_room(chosen):
            break
    else:
        return []
    # The last made the difference; earlier ones may not be needed beside it.
    for seat in reversed(chosen[:-1]):
        fewer = [s for s in chosen if s is not seat]
        if is_room(fewer):
            chosen = fewer
    return chosen


def may_leave(desk: Desk, bench: Bench, seat: Replica, want: Want) -> bool:
    """Whether a seat may be taken for `want`: soft, idle, and not just made for a newer want.

    The last, since else two wants could take the room from each other, neither ever used: so long
    every replica stays.
    """
    if not is_loaded(seat) or seat.key in desk.assigned or bench.outstanding(seat):
        return False
    wanted = desk.wants.get(seat.key)
    if wanted is None:
        return True
    if wanted.pinned:
        return False
    if want.pinned:
        return True
    return desk.served(bench, seat) or desk.urgency(wanted) < desk.urgency(want)


def no_room(desk: Desk, want: Want, benches: Sequence[Bench], sizes: dict[str, Footprint]) -> Wait:
    """Why none of these can take it: what is in the way is in use, or pinned for good."""
    for bench in benches:
        soft = [s.key for s in bench.seats.values() if not desk.is_pinned(s)]
        size = sizes[bench.worker.id]
        if bench.fits(size, pinned=want.pinned, without=[*soft, want.key], after_leaving=True):
            return reasons.in_use(want.key)
    return reasons.pinned_full(want.key)


def pins_of(desk: Desk, want: Want, bench: Bench) -> list[Release | Assign | Wait]:
    """The pin that a replica lacks, with the Releases it needs before it, or a Wait."""
    seat = bench.seats[want.key]
    if not want.pinned or seat.pinned or not is_loaded(seat):
        return []
    # Less urgent ones are to be pinned too: they take what room this leaves.
    rivals = [s for s in bench.seats.values() if not s.pinned and desk.is_pinned(s)]
    if bench.can_pin(want.key, without=[rival.key for rival in rivals]):
        return [desk.pin(bench, want, "it was pinned")]
    victims = victims_of(desk, want, bench, size_of(seat), rivals)
    if not victims:
        return [no_room(desk, want, [bench], {bench.worker.id: size_of(seat)})]
    releases = desk.make_room(want, bench, victims)
    return [*releases, desk.pin(bench, want, "it was pinned", bench.released_now)]
