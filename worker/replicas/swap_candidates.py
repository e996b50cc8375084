"""What the swap policy is told of a replica."""

from worker.batching.queue import Demand
from worker.replicas.ledger import Ledger
from worker.replicas.pack_reader import cache_entry
from worker.replicas.replica import Replica
from worker.replicas.swap_policy import SwapCandidate
from yolopool.vocabulary import ReplicaState

# A RELEASING replica is still promoted, for the tickets it has.
_SWAPPED = frozenset({ReplicaState.WARM, ReplicaState.HOT, ReplicaState.RELEASING})


def may_be_swapped(replica: Replica) -> bool:
    """Whether its pack is known and its load has not failed."""
    return replica.state in _SWAPPED and replica.pack is not None


def candidate_of(
    replica: Replica, ledger: Ledger, demand: Demand | None, now: float
) -> SwapCandidate:
    """The replica as the policy sees it; `demand` is of its tickets that wait."""
    hot, swap_s = ledger.holds(replica.key), replica.expected_swap_s()
    return SwapCandidate(
        key=replica.key,
        claim=replica.claim if hot else replica.expected(),
        hot=hot,
        loading=replica.key in ledger.reserved,
        pinned=replica.pinned and replica.state is not ReplicaState.RELEASING,
        wanted=replica.wanted,
        demand=demand,
        hot_since=replica.hot_since,
        swap_s=swap_s,
        worth=cache_entry(replica, swap_s, now, now - replica.hot_since).worth,
    )
