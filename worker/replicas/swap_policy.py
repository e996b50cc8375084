"""Which replicas are on the device now: the next one to bring there, and who leaves for it.

Pure; asked whenever something changed. Waiting tickets take their turns, the most urgent first;
a replica that was brought to the device stays for a turn that is long against its swap, so that
more models than fit are served without moving weights most of the time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.batching.queue import Demand
from worker.replicas.ledger import Claim, Ledger
from yolopool.errors import LedgerFull

# A turn is so many times as long as bringing its replica to the device took, times those who
# share the device: swaps then take about an eighth of the time at most.
TURN_PER_SWAP = 8.0
SHORTEST_TURN_S = 0.02
# For what nobody has sent a ticket for, but is to be on the device: behind all tickets.
UNASKED = Demand(0, (9, float("inf"), 0))


@dataclass(frozen=True, slots=True)
class SwapCandidate:
    """What is to be known of one replica; times in seconds of one clock.

    `claim` is what it holds or would reserve, `demand` what waits for it, `swap_s` what bringing
    it to the device takes, `worth` the order in which idle ones leave (lowest first).
    `wanted`: it is to be on the device though no ticket waits.
    """

    key: str
    claim: Claim
    hot: bool
    pinned: bool
    wanted: bool
    demand: Demand | None
    hot_since: float
    swap_s: float
    worth: tuple[float, float, str]

    def turn_ends(self, sharing: int) -> float:
        """When its turn is over, if so many share the device."""
        return self.hot_since + sharing * max(SHORTEST_TURN_S, TURN_PER_SWAP * self.swap_s)

    @property
    def urgency(self) -> tuple[bool, tuple[int, float, int], str]:
        return (not self.pinned, (self.demand or UNASKED).order, self.key)


@dataclass(frozen=True, slots=True)
class Swap:
    """Take `out` off the device, in this order, and then bring `key` there."""

    key: str
    out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shrink:
    """The budget is less than what is held: take these off the device."""

    out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing before this time, unless something changes."""

    at: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """`key` can't be brought to the device even if all that may leave did; `error` says why."""

    key: str
    error: LedgerFull


Decision = Swap | Shrink | Later | Refuse


def decide(standings: Sequence[SwapCandidate], ledger: Ledger, now: float) -> Decision | None:
    """What to do next; None: nothing, until something changes."""
    hot = [one for one in standings if one.hot]
    sharing = sum(one.demand is not None for one in hot)
    if ledger.free_bytes < 0:
        over = _until_it_fits(ledger, _leavers(hot, None, now, patient=False))
        if over:
            return Shrink(over)
    later: list[float] = []
    for one in sorted(_asking(standings), key=lambda one: one.urgency):
        leavers = _leavers(hot, one, now, patient=True)
        out = _room(one, ledger, [leaver.key for leaver in leavers])
        if out is not None:
            return Swap(one.key, out)
        if not _worth_waiting(one, hot, ledger):
            return Refuse(one.key, _explain(one, ledger, hot))
        ends = (other.turn_ends(sharing) for other in hot if not other.pinned)
        later += [moment for moment in ends if moment > now]
    return Later(min(later)) if later else None


def _asking(standings: Iterable[SwapCandidate]) -> Iterable[SwapCandidate]:
    for one in standings:
        if not one.hot and (one.pinned or one.wanted or one.demand is not None):
            yield one


def _leavers(
    hot: Sequence[SwapCandidate], newcomer: SwapCandidate | None, now: float, patient: bool
) -> list[SwapCandidate]:
    """Who may leave, in the order in which they do: first idle ones, then those whose turn is over
    or whose tickets are all less urgent by priority; of each the least worth first, so that many
    that are asked for rarely share one place and do not take that of one in rotation.
    """
    idle = [one for one in hot if not one.pinned and one.demand is None]
    working = [one for one in hot if not one.pinned and one.demand is not None]
    sharing = sum(one.demand is not None for one in hot)
    busy = [
        one
        for one in working
        if not patient or one.turn_ends(sharing) <= now or _yields(one, newcomer)
    ]
    return [
        *sorted(idle, key=lambda one: one.worth),
        *sorted(busy, key=lambda one: one.worth),
    ]


def _yields(one: SwapCandidate, newcomer: SwapCandidate | None) -> bool:
    if newcomer is None or one.demand is None:
        return False
    return newcomer.pinned or (
        newcomer.demand is not None and newcomer.demand.priority < one.demand.priority
    )


def _room(one: SwapCandidate, ledger: Ledger, leavers: Sequence[str]) -> tuple[str, ...] | None:
    """Fewest of the leavers, the first first, whose leaving lets `one` be reserved."""
    chosen: list[str] = []
    for key in (None, *leavers):
        if key is not None:
            chosen.append(key)
        if _fits(one, ledger, chosen):
            break
    else:
        return None
    # The last made the difference; earlier ones may not be needed beside it.
    for spared in list(reversed(chosen[:-1])):
        fewer = [key for key in chosen if key != spared]
        if _fits(one, ledger, fewer):
            chosen = fewer
    return tuple(chosen)


def _until_it_fits(ledger: Ledger, leavers: Sequence[SwapCandidate]) -> tuple[str, ...]:
    out = []
    for leaver in leavers:
        if ledger.free_bytes >= 0:
            break
        ledger = ledger.release(leaver.key)
        out.append(leaver.key)
    return tuple(out)


def _worth_waiting(one: SwapCandidate, hot: Sequence[SwapCandidate], ledger: Ledger) -> bool:
    return _fits(one, ledger, [other.key for other in hot if not other.pinned])


def _fits(one: SwapCandidate, ledger: Ledger, without: Iterable[str]) -> bool:
    return _refusal(one, ledger, without) is None


def _refusal(one: SwapCandidate, ledger: Ledger, without: Iterable[str]) -> LedgerFull | None:
    for key in without:
        ledger = ledger.release(key)
    try:
        ledger.reserve(one.key, one.claim)
    except LedgerFull as error:
        return error
    return None


def _explain(one: SwapCandidate, ledger: Ledger, hot: Sequence[SwapCandidate]) -> LedgerFull:
    """Why `one` finds no room: with all gone that may leave, the numbers are of what stays."""
    refusal = _refusal(one, ledger, [other.key for other in hot if not other.pinned])
    assert refusal is not None, "only asked of one that does not fit"
    pinned = sum(other.pinned for other in hot)
    return LedgerFull(
        f"{refusal.message} ({pinned} pinned replicas can't leave the device)",
        details={**refusal.details, "pinned": str(pinned)},
    )
