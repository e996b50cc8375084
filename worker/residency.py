"""Which replicas are on the device now: what to demote so that another fits.

Pure. The order is least recently used first; pinned replicas and those with tickets stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.ledger import Claim, Ledger
from yolopool.errors import LedgerFull


@dataclass(frozen=True, slots=True)
class Resident:
    """What is to be known of one replica on the device; times in seconds of one clock."""

    key: str
    pinned: bool
    tickets: int
    last_used: float

    @property
    def movable(self) -> bool:
        return not self.pinned and self.tickets == 0


@dataclass(frozen=True, slots=True)
class Demote:
    """Take these off the device, in this order; empty: it fits as it is."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Nothing that may leave frees enough; `error` has the numbers and says why."""

    error: LedgerFull


def make_room(
    key: str, claim: Claim, ledger: Ledger, residents: Sequence[Resident]
) -> Demote | NoRoom:
    """Chooses the replicas whose demotion lets `claim` be reserved.

    Least recently used first; those that turn out not to be needed stay, most recent first.
    """
    candidates = sorted(
        (resident for resident in residents if resident.movable),
        key=lambda resident: (resident.last_used, resident.key),
    )
    chosen: list[str] = []
    refusal = _refusal(key, claim, ledger)
    for candidate in candidates:
        if refusal is None:
            break
        chosen.append(candidate.key)
        refusal = _refusal(key, claim, _without(ledger, chosen))
    if refusal is not None:
        return NoRoom(_explain(refusal, residents))
    for spared in reversed(chosen):
        fewer = [other for other in chosen if other != spared]
        if _refusal(key, claim, _without(ledger, fewer)) is None:
            chosen = fewer
    return Demote(tuple(chosen))


def _without(ledger: Ledger, keys: Sequence[str]) -> Ledger:
    for key in keys:
        ledger = ledger.release(key)
    return ledger


def _refusal(key: str, claim: Claim, ledger: Ledger) -> LedgerFull | None:
    try:
        ledger.reserve(key, claim)
    except LedgerFull as error:
        return error
    return None


def _explain(refusal: LedgerFull, residents: Sequence[Resident]) -> LedgerFull:
    pinned = sum(resident.pinned for resident in residents)
    busy = sum(resident.tickets > 0 and not resident.pinned for resident in residents)
    return LedgerFull(
        f"{refusal.message} ({pinned} pinned and {busy} busy replicas can't leave the device)",
        details={**refusal.details, "pinned": str(pinned), "busy": str(busy)},
    )
