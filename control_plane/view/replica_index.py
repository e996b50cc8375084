"""The workers that may serve one version, HOT and WARM ones apart, each list by rank. Pure.

The balancer takes a few from the front and a few at random, so no request walks the whole list.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from hashlib import blake2b

from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo, WorkerState
from yolopool.vocabulary import ReplicaState

Entry = tuple[int, str]  # rank, worker id


def rank(key: VersionKey, worker_id: str) -> int:
    """Rendezvous hashing (Thaler and Ravishankar, 1998): every control plane ranks the workers of
    a version alike, and each version ranks them differently.
    """
    return int.from_bytes(blake2b(f"{key} {worker_id}".encode(), digest_size=8).digest(), "big")


class ReplicaIndex:
    """The workers that report one version in any state. Iterates over their ids.

    `hot` and `warm`: the READY workers that may get its requests, by rank. Read-only for others.
    """

    __slots__ = ("_entries", "_key", "_lists", "hot", "warm")

    def __init__(self, key: VersionKey) -> None:
        self.hot: list[Entry] = []
        self.warm: list[Entry] = []
        self._key = key
        self._entries: dict[str, Entry] = {}
        self._lists: dict[str, list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def put(self, worker: WorkerInfo) -> None:
        """Adds a worker that holds the version, or moves it to the list of its present state."""
        entry = self._entries.get(worker.id)
        if entry is None:
            entry = self._entries[worker.id] = (rank(self._key, worker.id), worker.id)
        among = self._list_of(worker)
        before = self._lists.get(worker.id)
        if among is before:
            return
        self._unlist(entry, before)
        if among is not None:
            insort(among, entry)
            self._lists[worker.id] = among

    def discard(self, worker_id: str) -> bool:
        """Removes a worker. Returns whether it was there."""
        entry = self._entries.pop(worker_id, None)
        if entry is None:
            return False
        self._unlist(entry, self._lists.get(worker_id))
        return True

    def _list_of(self, worker: WorkerInfo) -> list[Entry] | None:
        if worker.state is not WorkerState.READY:
            return None
        state = worker.replicas[self._key].state
        if state is ReplicaState.HOT:
            return self.hot
        return self.warm if state is ReplicaState.WARM else None

    def _unlist(self, entry: Entry, among: list[Entry] | None) -> None:
        if among is not None:
            del among[bisect_left(among, entry)]
            del self._lists[entry[1]]
