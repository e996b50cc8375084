"""What versions take on devices: measured by workers, else estimated from the import. Pure.

A measurement is of a pack, a variant and a kind of device, so that a worker that never saw a
version knows what to reserve. What is new of it waits in `unrecorded` to be put on record.
"""

from collections.abc import Mapping
from types import MappingProxyType

from control_plane.types.footprint import Footprint, FootprintKey, measured
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import Replica, WorkerInfo

NO_REPLICAS: Mapping[VersionKey, Replica] = MappingProxyType({})


class Footprints:
    """`current` is what plans go by: what was measured last, and guesses from refusals."""

    def __init__(self) -> None:
        self.current: Mapping[FootprintKey, Footprint] = {}
        self.unrecorded: dict[FootprintKey, Footprint] = {}
        self._measured: dict[FootprintKey, Footprint] = {}
        self._guessed: dict[FootprintKey, Footprint] = {}
        self._told: dict[tuple[str, VersionKey], Footprint] = {}

    def measured(self, key: FootprintKey) -> Footprint | None:
        return measured(key, self._measured)

    def take(self, recorded: Mapping[FootprintKey, Footprint]) -> None:
        """Learns what is on record. What workers told is newer, and is missed by an empty store."""
        self._measured = {**recorded, **self._measured}
        for key, footprint in self._measured.items():
            if footprint.differs(recorded.get(key)):
                self.unrecorded[key] = footprint
        self._renew()

    def observe(
        self,
        worker: WorkerInfo,
        versions: Mapping[VersionKey, ModelVersion],
        before: Mapping[VersionKey, Replica] = NO_REPLICAS,
    ) -> None:
        """Learns what a worker measured, where it differs from what it told before: two workers of
        one kind that measure apart would else overwrite each other at every heartbeat. `before`
        are its replicas as they were heard last: what is the same object is no news.
        """
        for key, replica in worker.replicas.items():
            was = before.get(key)
            if was is not None and was.footprint is replica.footprint:
                continue
            place, told = (worker.id, key), replica.footprint
            if told is None or not replica.pack or not told.differs(self._told.get(place)):
                continue
            self._told[place] = told
            # By what the worker was told to make, as it is looked up before the pack ever ran: of
            # a graph that computes in a precision of its own, the replica's variant says another.
            version = versions.get(key)
            made = version.made_by(worker.build)[1] if version is not None else worker.build
            kind = FootprintKey.of(replica.pack, made)
            self._guessed.pop(kind, None)
            if told.differs(self._measured.get(kind)):
                self._measured[kind] = self.unrecorded[kind] = told
            self._renew()

    def assume(self, key: FootprintKey, footprint: Footprint) -> None:
        """A worker refused by what it needs more: holds until one measures, and is not recorded."""
        self._guessed[key] = footprint
        self._renew()

    def recorded(self, key: FootprintKey, footprint: Footprint) -> None:
        """It is on record now, unless it was measured anew meanwhile."""
        if self.unrecorded.get(key) is footprint:
            del self.unrecorded[key]

    def forget_worker(self, worker_id: str) -> None:
        """Its next process tells anew."""
        self._told = {place: one for place, one in self._told.items() if place[0] != worker_id}

    def _renew(self) -> None:
        # A new mapping each time: a snapshot keeps the one it was given.
        self.current = {**self._measured, **self._guessed}
