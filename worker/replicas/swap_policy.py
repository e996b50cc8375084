"""Decides which replicas are on the device: the next one to promote, and which it evicts.

Pure; asked whenever something changed. Replicas with waiting tickets take turns, the most urgent
first. A promoted replica stays for a turn that is long compared with its swap, so that more models
than fit are served without moving weights most of the time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.batching.queue import Demand
from worker.replicas.ledger import Claim, Ledger
from yolopool.errors import LedgerFull

# The length of a turn, as a multiple of the replica's swap time and of the number of replicas that
# share the device: swaps then take at most about an eighth of the time.
TURN_PER_SWAP = 8.0
MIN_TURN_S = 0.02
# The demand of a replica that should be on the device though no ticket waits for it: it goes behind
# all that have tickets.
NO_TICKETS = Demand(0, (9, float("inf"), 0))


@dataclass(frozen=True, slots=True)
class SwapCandidate:
    """What the policy knows about one replica; times are seconds of one clock.

    `claim` is what it holds or would reserve, `demand` the tickets that wait for it, `swap_s` how
    long its swap onto the device takes. The lowest `worth` is evicted first. `wanted`: it should be
    on the device though no ticket waits. `loading`: it holds its bytes, and can't be evicted yet.
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
    loading: bool = False

    def turn_ends(self, sharing: int) -> float:
        """When its turn is over, if `sharing` replicas share the device."""
        return self.hot_since + sharing * max(MIN_TURN_S, TURN_PER_SWAP * self.swap_s)

    @property
    def urgency(self) -> tuple[bool, tuple[int, float, int], str]:
        return (not self.pinned, (self.demand or NO_TICKETS).order, self.key)


@dataclass(frozen=True, slots=True)
class Swap:
    """Evict `out` from the device, in this order, and then promote `key`."""

    key: str
    out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shrink:
    """The budget is less than what is held: evict these from the device."""

    out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Later:
    """Do nothing before this time, unless something changes."""

    at: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """`key` does not fit even if every replica that may leave is evicted; `error` says why."""

    key: str
    error: LedgerFull


Decision = Swap | Shrink | Later | Refuse


def decide(candidates: Sequence[SwapCandidate], ledger: Ledger, now: float) -> Decision | None:
    """What to do next; None: nothing, until something changes."""
    held = [candidate for candidate in candidates if candidate.hot]
    hot = [candidate for candidate in held if not candidate.loading]
    sharing = _sharing(hot)
    if ledger.free_bytes < 0:
        over = _until_within_budget(ledger, _eviction_order(hot, None, now, patient=False))
        if over:
            return Shrink(over)
    later: list[float] = []
    for newcomer in sorted(_asking(candidates), key=lambda candidate: candidate.urgency):
        evictable = _eviction_order(hot, newcomer, now, patient=True)
        out = _victims(newcomer, ledger, [victim.key for victim in evictable])
        if out is not None:
            return Swap(newcomer.key, out)
        if not _worth_waiting(newcomer, held, ledger):
            return Refuse(newcomer.key, _explain(newcomer, ledger, held))
        ends = (other.turn_ends(sharing) for other in hot if not other.pinned)
        later += [moment for moment in ends if moment > now]
    return Later(min(later)) if later else None


def _sharing(hot: Iterable[SwapCandidate]) -> int:
    """How many replicas on the device have tickets."""
    return sum(candidate.demand is not None for candidate in hot)


def _asking(candidates: Iterable[SwapCandidate]) -> Iterable[SwapCandidate]:
    """Replicas that should be on the device and are not."""
    for candidate in candidates:
        if not candidate.hot and (
            candidate.pinned or candidate.wanted or candidate.demand is not None
        ):
            yield candidate


def _eviction_order(
    hot: Sequence[SwapCandidate], newcomer: SwapCandidate | None, now: float, patient: bool
) -> list[SwapCandidate]:
    """The replicas that may be evicted, in order: idle ones, then those whose turn is over or whose
    tickets all have a lower priority than the newcomer's. Among each, the least worth goes first,
    so that many models that are rarely asked for share one place, and do not evict one in rotation.
    """
    idle = [candidate for candidate in hot if not candidate.pinned and candidate.demand is None]
    working = [
        candidate for candidate in hot if not candidate.pinned and candidate.demand is not None
    ]
    sharing = _sharing(hot)
    busy = [
        candidate
        for candidate in working
        if not patient or candidate.turn_ends(sharing) <= now or _yields(candidate, newcomer)
    ]
    return [
        *sorted(idle, key=lambda candidate: candidate.worth),
        *sorted(busy, key=lambda candidate: candidate.worth),
    ]


def _yields(candidate: SwapCandidate, newcomer: SwapCandidate | None) -> bool:
    """Whether the newcomer preempts it."""
    if newcomer is None or candidate.demand is None:
        return False
    return newcomer.pinned or (
        newcomer.demand is not None and newcomer.demand.priority < candidate.demand.priority
    )


def _victims(
    newcomer: SwapCandidate, ledger: Ledger, evictable: Sequence[str]
) -> tuple[str, ...] | None:
    """The fewest of `evictable`, in its order, whose eviction lets `newcomer` be reserved; None if
    all of them are not enough.
    """
    chosen: list[str] = []
    for key in (None, *evictable):
        if key is not None:
            chosen.append(key)
        if _fits(newcomer, ledger, chosen):
            break
    else:
        return None
    # The last one made the difference; earlier ones may not be needed beside it.
    for spared in list(reversed(chosen[:-1])):
        fewer = [key for key in chosen if key != spared]
        if _fits(newcomer, ledger, fewer):
            chosen = fewer
    return tuple(chosen)


def _until_within_budget(ledger: Ledger, evictable: Sequence[SwapCandidate]) -> tuple[str, ...]:
    out = []
    for candidate in evictable:
        if ledger.free_bytes >= 0:
            break
        ledger = ledger.release(candidate.key)
        out.append(candidate.key)
    return tuple(out)


def _worth_waiting(newcomer: SwapCandidate, hot: Sequence[SwapCandidate], ledger: Ledger) -> bool:
    return _fits(newcomer, ledger, [other.key for other in hot if not other.pinned])


def _fits(newcomer: SwapCandidate, ledger: Ledger, without: Iterable[str]) -> bool:
    return _refusal(newcomer, ledger, without) is None


def _refusal(newcomer: SwapCandidate, ledger: Ledger, without: Iterable[str]) -> LedgerFull | None:
    """Why `newcomer` can't be reserved once the replicas `without` are evicted; None: it can."""
    for key in without:
        ledger = ledger.release(key)
    try:
        ledger.reserve(newcomer.key, newcomer.claim)
    except LedgerFull as error:
        return error
    return None


def _explain(newcomer: SwapCandidate, ledger: Ledger, hot: Sequence[SwapCandidate]) -> LedgerFull:
    """Why `newcomer` does not fit. The numbers are those with every replica evicted that may be."""
    refusal = _refusal(newcomer, ledger, [other.key for other in hot if not other.pinned])
    assert refusal is not None, "only asked about a replica that does not fit"
    pinned = sum(other.pinned for other in hot)
    return LedgerFull(
        f"{refusal.message} ({pinned} pinned replicas can't leave the device)",
        details={**refusal.details, "pinned": str(pinned)},
    )
