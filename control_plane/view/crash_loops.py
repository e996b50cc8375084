"""Worker processes that ended by themselves, as their supervisors told: who is in a crash loop.

Pure: times are monotonic seconds and arguments.
"""

from collections.abc import Mapping

from control_plane.types.worker import WorkerExit

# A process that ran for so long has ended the loop, as supervisors count.
STEADY_S = 60.0
# Workers of whom it is kept.
MOST = 1000
LONGEST_OUTPUT = 8 * 1024


class CrashLoops:
    """The last exit of each worker, until one of its processes has stayed."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[WorkerExit, float]] = {}

    def note(self, exit: WorkerExit, now: float) -> None:
        self._until.pop(exit.worker, None)
        self._until[exit.worker] = (exit, now + exit.restart_in_s + STEADY_S)
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]

    def current(self, now: float) -> Mapping[str, WorkerExit]:
        """By worker."""
        self._until = {id_: one for id_, one in self._until.items() if now < one[1]}
        return {id_: exit for id_, (exit, _) in self._until.items()}
