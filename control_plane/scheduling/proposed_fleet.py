"""The live workers as they will be once a plan is done, and which of them has which version. Pure.

A proposed fleet may live from plan to plan: a new report of a worker replaces what was planned for
it, so that a change of one worker costs one worker and not a fleet.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator

from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.footprint import Footprint
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo

MIB = 2**20


class ProposedFleet:
    """`workers`: those that take work, by id; `holder_ids`: ids of those that have a version."""

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

    def __repr__(self) -> str:
        """Such as `ProposedFleet(2 workers, 5 hot, 1 leaving, 130 MiB free)`."""
        workers = self.workers.values()
        states = Counter(r.state for worker in workers for r in worker.replicas.values())
        leaving = sum(len(worker.leaving) for worker in workers)
        free = sum(worker.free_bytes for worker in workers) / MIB
        counts = [
            f"{len(workers)} workers",
            *(f"{count} {state.lower()}" for state, count in sorted(states.items())),
            *([f"{leaving} leaving"] if leaving else []),
            f"{free:,.0f} MiB free",
        ]
        return f"ProposedFleet({', '.join(counts)})"

    def put(self, worker: WorkerInfo, snapshot: Snapshot, now: float) -> None:
        """Takes a worker as it reports itself, with commands under way already applied to it."""
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
        ):  # stale entries leave when they come up
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
        """Workers that have a replica of this version, in order of their ids."""
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
        """Of the workers that suit, the one with most free bytes on its device."""
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
        """Current entries, most free first. Each leaves the heap: the caller puts it back, stale
        entries are dropped.
        """
        last = None
        while self._by_free_bytes:
            entry = heapq.heappop(self._by_free_bytes)
            proposed = self.workers.get(entry[1])
            if entry == last or proposed is None or -proposed.free_bytes != entry[0]:
                continue
            last = entry
            yield entry
