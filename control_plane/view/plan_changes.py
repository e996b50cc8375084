"""What changed since the last plan, so that the next plan looks at nothing else. Pure."""

from control_plane.types.version import VersionKey


class PlanChanges:
    """Versions and workers. At first every version counts as changed."""

    def __init__(self) -> None:
        self._versions: set[VersionKey] | None = None  # None: any version
        self._workers: set[str] = set()

    def touch(self, *keys: VersionKey) -> None:
        if self._versions is not None:
            self._versions.update(keys)

    def touch_all(self) -> None:
        self._versions = None

    def move(self, worker_id: str) -> None:
        """What may be placed on this worker changed."""
        self._workers.add(worker_id)

    def take(self) -> tuple[set[VersionKey] | None, set[str]]:
        """Versions (None: any) and workers that changed since the last call."""
        versions, workers = self._versions, self._workers
        self._versions, self._workers = set(), set()
        return versions, workers
