"""The last crash of each worker, as its supervisor reported it. Pure: times are monotonic seconds
and arguments.
"""

from collections.abc import Mapping

from control_plane.types.worker import WorkerExit

# A process that runs for so long ends the loop; supervisors count the same.
STEADY_S = 60.0
MAX_WORKERS = 1000
MAX_OUTPUT_CHARS = 8 * 1024


class CrashLoops:
    """Keeps an exit until a later process of the worker had the time to run steadily."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[WorkerExit, float]] = {}

    def note(self, exit: WorkerExit, now: float) -> None:
        self._until.pop(exit.worker, None)
        self._until[exit.worker] = (exit, now + exit.restart_in_s + STEADY_S)
        while len(self._until) > MAX_WORKERS:
            del self._until[next(iter(self._until))]

    def current(self, now: float) -> Mapping[str, WorkerExit]:
        """The exits by worker id."""
        self._until = {id_: kept for id_, kept in self._until.items() if now < kept[1]}
        return {id_: exit for id_, (exit, _) in self._until.items()}
