"""All workers while plans are made: their benches, and who holds what. Pure.

A board may live from plan to plan: what a worker reports anew takes the place of what was planned
of it, so that a change of one worker costs one bench and not a fleet.
"""

import heapq
from collections.abc import Callable, Iterator

from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.footprint import Footprint
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo


class ProposedFleet:
    """Benches of workers that take work, by id."""

    def __init__(self) -> None:
        self.workers: dict[str, ProposedWorker] = {}
        self.holder_ids: dict[VersionKey, set[str]] = {}
        self._by_free_bytes: list[tuple[int, str]] = []

    @classmethod
    def of(cls, snapshot: Snapshot, now: float) -> "ProposedFleet":
        """now: monotonic seconds."""
        fleet = cls()
        for worker in snapshot.workers.values():
            fleet.put(worker, snapshot, now)
        return fleet

    def put(self, worker: WorkerInfo, snapshot: Snapshot, now: float) -> None:
        """A worker as it reports itself now, what is under way with it included."""
        self.drop(worker.id)
        if not worker.is_live(now):
            return
        proposed = self.workers[worker.id] = ProposedWorker(worker, snapshot.calls)
        for key in worker.replicas:
            self.holder_ids.setdefault(key, set()).add(worker.id)
        self._push(proposed)

    def _push(self, proposed: ProposedWorker) -> None:
        heapq.heappush(self._by_free_bytes, (-proposed.free_bytes, proposed.id))
        if (
            len(self._by_free_bytes) > 4 * len(self.workers) + 64
        ):  # old entries leave when they come up
            self._by_free_bytes = [
                (-worker.free_bytes, id_) for id_, worker in self.workers.items()
            ]
            heapq.heapify(self._by_free_bytes)

    def drop(self, worker_id: str) -> None:
        proposed = self.workers.pop(worker_id, None)
        if proposed is None:
            return
        for key in (*proposed.replicas, *proposed.leaving):
            holders = self.holder_ids.get(key)
            if holders is not None:
                holders.discard(worker_id)
                if not holders:
                    del self.holder_ids[key]

    def holders(self, key: VersionKey) -> list[ProposedWorker]:
        """Benches that have a seat of this version, by id."""
        held = sorted(self.holder_ids.get(key, ()))
        return [self.workers[id_] for id_ in held if key in self.workers[id_].replicas]

    def assign(
        self, proposed: ProposedWorker, key: VersionKey, size: Footprint, pinned: bool
    ) -> None:
        proposed.assign(key, size, pinned)
        self.holder_ids.setdefault(key, set()).add(proposed.id)
        self._push(proposed)

    def release(self, proposed: ProposedWorker, key: VersionKey) -> None:
        proposed.release(key)
        self._push(proposed)

    def most_free(self, suits: Callable[[ProposedWorker], bool]) -> ProposedWorker | None:
        """Of the benches that suit, the one with most free bytes on its device."""
        tried: list[tuple[int, str]] = []
        found = None
        for entry in self._most_free_first():
            tried.append(entry)
            if suits(self.workers[entry[1]]):
                found = self.workers[entry[1]]
                break
        for entry in tried:
            heapq.heappush(self._by_free_bytes, entry)
        return found

    def _most_free_first(self) -> Iterator[tuple[int, str]]:
        """Entries that are true, most free first; each leaves the heap, and old ones for good."""
        last = None
        while self._by_free_bytes:
            entry = heapq.heappop(self._by_free_bytes)
            proposed = self.workers.get(entry[1])
            if entry == last or proposed is None or -proposed.free_bytes != entry[0]:
                continue
            last = entry
            yield entry
