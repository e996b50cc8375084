"""The memory that versions take on devices, as workers measured it. Pure.

A measurement belongs to a pack, a variant and a kind of device, so it holds for workers that never
loaded the version. New measurements wait in `unrecorded` until the leader records them.
"""

from collections.abc import Mapping
from types import MappingProxyType

from control_plane.types.footprint import Footprint, FootprintKey, measured
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import Replica, WorkerInfo

NO_REPLICAS: Mapping[VersionKey, Replica] = MappingProxyType({})


class Footprints:
    """`current` is what plans use: the last measurements, and guesses from refusals."""

    def __init__(self) -> None:
        self.current: Mapping[FootprintKey, Footprint] = {}
        self.unrecorded: dict[FootprintKey, Footprint] = {}
        self._measured: dict[FootprintKey, Footprint] = {}
        self._guessed: dict[FootprintKey, Footprint] = {}
        self._told: dict[tuple[str, VersionKey], Footprint] = {}

    def measured(self, key: FootprintKey) -> Footprint | None:
        return measured(key, self._measured)

    def take(self, recorded: Mapping[FootprintKey, Footprint]) -> None:
        """Learns recorded footprints. Reports of workers are newer; an emptied store lacks them."""
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
        """Learns what a worker measured if it differs from its last report. Otherwise two workers
        of one kind that measure differently would overwrite each other at every heartbeat.
        `before`: its replicas in the last heartbeat; the same object is no news.
        """
        for key, replica in worker.replicas.items():
            was = before.get(key)
            if was is not None and was.footprint is replica.footprint:
                continue
            place, told = (worker.id, key), replica.footprint
            if told is None or not replica.pack or not told.differs(self._told.get(place)):
                continue
            self._told[place] = told
            # Keyed by the variant that the worker was told to make, since plans look it up before
            # the pack ran. A graph with a precision of its own reports another variant.
            version = versions.get(key)
            made = version.made_by(worker.build)[1] if version is not None else worker.build
            kind = FootprintKey.of(replica.pack, made)
            self._guessed.pop(kind, None)
            if told.differs(self._measured.get(kind)):
                self._measured[kind] = self.unrecorded[kind] = told
            self._renew()

    def assume(self, key: FootprintKey, footprint: Footprint) -> None:
        """A worker refused because it needs more. The guess holds until a worker measures, and is
        not recorded.
        """
        self._guessed[key] = footprint
        self._renew()

    def recorded(self, key: FootprintKey, footprint: Footprint) -> None:
        """It was recorded. If it was measured again meanwhile, it stays unrecorded."""
        if self.unrecorded.get(key) is footprint:
            del self.unrecorded[key]

    def forget_worker(self, worker_id: str) -> None:
        """The next process of the worker reports everything again."""
        self._told = {place: told for place, told in self._told.items() if place[0] != worker_id}

    def _renew(self) -> None:
        # A new mapping each time: a snapshot keeps the old one.
        self.current = {**self._measured, **self._guessed}
