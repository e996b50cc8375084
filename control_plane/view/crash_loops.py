"""Worker processes that ended by themselves, as their supervisors told: who is in a crash loop.

Pure: times are monotonic seconds and arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# A process that ran for so long has ended the loop, as supervisors count.
STEADY_S = 60.0
# So many ends in a row are a loop.
LOOP = 3
# Workers of whom it is kept.
MOST = 1000
LONGEST_OUTPUT = 8 * 1024
_LONGEST_LINE = 200


@dataclass(frozen=True, slots=True)
class Exit:
    """How the last process of a worker ended, and what is done about it; see fleet.proto."""

    worker: str
    device: str
    device_kind: str
    ended: str
    last_output: str
    in_a_row: int
    ran_s: float
    restart_in_s: float
    unix_s: float

    @property
    def is_loop(self) -> bool:
        return self.in_a_row >= LOOP

    @property
    def last_line(self) -> str:
        """What it said of its end, for one line: its last error, or else its last words."""
        lines = [line.strip() for line in self.last_output.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return next(reversed(errors or lines), "it said nothing")[:_LONGEST_LINE]

    def __str__(self) -> str:
        return (
            f"{self.ended} after {self.ran_s:.1f} s, {self.in_a_row} in a row; it is started again "
            f"in {self.restart_in_s:g} s: {self.last_line}"
        )


class Exits:
    """The last exit of each worker, until one of its processes has stayed."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[Exit, float]] = {}

    def note(self, exit: Exit, now: float) -> None:
        self._until.pop(exit.worker, None)
        self._until[exit.worker] = (exit, now + exit.restart_in_s + STEADY_S)
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]

    def current(self, now: float) -> Mapping[str, Exit]:
        """By worker."""
        self._until = {id_: one for id_, one in self._until.items() if now < one[1]}
        return {id_: exit for id_, (exit, _) in self._until.items()}
