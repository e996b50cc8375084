"""Loads that failed, and when each may be tried again: twice as late after every failure."""

from collections.abc import Mapping

from control_plane.types.snapshot import LoadFailure
from control_plane.types.version import VersionKey
from control_plane.types.worker import ReplicaKey

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 300.0


class LoadBackoff:
    """By worker and version; times are monotonic seconds and arguments."""

    def __init__(self) -> None:
        self.current: Mapping[ReplicaKey, LoadFailure] = {}
        self._counts: dict[ReplicaKey, int] = {}

    def record(self, place: ReplicaKey, reason: str, message: str, now: float) -> LoadFailure:
        """A load failed at `now`."""
        count = self._counts.get(place, 0) + 1
        self._counts[place] = count
        delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(count - 1, 10))
        return self._put(place, LoadFailure(reason, message, now + delay_s))

    def refuse(self, place: ReplicaKey, reason: str, message: str, retry_at: float) -> LoadFailure:
        """The worker refused for the moment: no failure of the load, only not before `retry_at`."""
        return self._put(place, LoadFailure(reason, message, retry_at))

    def note(self, place: ReplicaKey, reason: str, message: str, now: float) -> None:
        """A worker reports a failed replica: news only to a process that did not ask for it."""
        if place not in self.current:
            self.record(place, reason or "LOAD_FAILED", message, now)

    def succeeded(self, place: ReplicaKey) -> None:
        self._counts.pop(place, None)
        self._drop({place})

    def forget_worker(self, worker: str) -> None:
        """Its next process starts with a clean sheet."""
        gone = {place for place in {*self.current, *self._counts} if place[0] == worker}
        self._counts = {p: c for p, c in self._counts.items() if p not in gone}
        self._drop(gone)

    def forget_version(self, key: VersionKey) -> None:
        """Someone asks for it anew: try at once."""
        gone = {place for place in {*self.current, *self._counts} if place[1] == key}
        self._counts = {p: c for p, c in self._counts.items() if p not in gone}
        self._drop(gone)

    def _put(self, place: ReplicaKey, failure: LoadFailure) -> LoadFailure:
        # A new mapping each time: a snapshot keeps the one it was given.
        self.current = {**self.current, place: failure}
        return failure

    def _drop(self, places: set[ReplicaKey]) -> None:
        if places & self.current.keys():
            self.current = {p: f for p, f in self.current.items() if p not in places}
