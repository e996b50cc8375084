"""Watches the executions of one target: what is raised, what is logged as an error, how long each
takes, and what the process holds. Findings are kept as files, one of each kind of cause.
"""

import hashlib
import json
import logging
import mmap
import os
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from tests.fuzz.target import Door, Target

ROOT = Path(__file__).parents[2]
_AGAIN = 2
_SLOWEST, _NOTE_BYTES, _NOTE = 10, 4 * 1024**2, struct.Struct("<dI")
_MESSAGE_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Finding:
    """`cause` is the same for the same fault: an exception's type and the line that raised it."""

    target: str
    kind: str  # exception, log, slow, crash, hang
    cause: str
    message: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Slow:
    """One of the slowest executions."""

    seconds: float
    outcome: str
    size_bytes: int
    sha256: str


class Alarms(logging.Handler):
    """Errors that are logged, and exceptions of tasks that nobody waits for. While it is entered,
    everything else that is logged is thrown away.
    """

    def __init__(self, meant: tuple[str, ...] = ()) -> None:
        super().__init__(logging.ERROR)
        self._meant = meant
        self.heard: list[tuple[str, str]] = []  # cause, message
        self._before: list[logging.Handler] = []

    def __enter__(self) -> "Alarms":
        structlog.configure(processors=[self._said], cache_logger_on_first_use=False)
        root = logging.getLogger()
        self._before, root.handlers = root.handlers, [self]
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().handlers = self._before
        structlog.reset_defaults()

    def _said(self, _: Any, level: str, event: Any) -> Any:
        if level in ("error", "critical", "exception"):
            error = event.get("exc_info")
            if error is True:
                error = sys.exc_info()[1]
            if isinstance(error, BaseException):
                self._hear(cause_of(error), _text(error))
            else:
                self._hear(f"log: {event.get('event')}", repr(dict(event)))
        raise structlog.DropEvent

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        cause = cause_of(error) if error is not None else f"log: {record.name}: {record.msg}"
        self._hear(cause, record.getMessage() + (_text(error) if error else ""))

    def _hear(self, cause: str, message: str) -> None:
        if not cause.startswith(self._meant or "\0"):
            self.heard.append((cause, message))

    def of_loop(self, _: Any, context: dict[str, Any]) -> None:
        """For `loop.set_exception_handler`."""
        error = context.get("exception")
        cause = cause_of(error) if error is not None else f"loop: {context['message']}"
        self._hear(cause, context["message"] + (_text(error) if error else ""))

    def taken(self) -> Iterator[tuple[str, str]]:
        """What was heard since; once."""
        heard, self.heard = self.heard, []
        yield from heard


class Note:
    """The input that is being run, in a file that outlives a crash of this process."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(_NOTE.size + _NOTE_BYTES)
            self._memory = mmap.mmap(file.fileno(), 0)

    def write(self, data: bytes) -> None:
        kept = data[:_NOTE_BYTES]
        self._memory[_NOTE.size : _NOTE.size + len(kept)] = kept
        self._memory[: _NOTE.size] = _NOTE.pack(time.time(), len(kept))

    def done(self) -> None:
        self._memory[: _NOTE.size] = _NOTE.pack(0.0, 0)


def noted(path: Path) -> tuple[float, bytes] | None:
    """When an execution began that has not ended (Unix seconds), and its input."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    began, size = _NOTE.unpack_from(data)
    return (began, data[_NOTE.size : _NOTE.size + size]) if began else None


class Watch:
    """Runs inputs through a door, which may be exchanged. `folder` gets the findings."""

    def __init__(self, target: Target, door: Door, folder: Path, alarms: Alarms) -> None:
        self.door = door
        self.executions = 0
        self.outcomes: Counter[str] = Counter()
        self.slowest: list[Slow] = []
        self._target, self._folder, self._alarms = target, folder, alarms
        self._note = Note(folder / "current")
        self._causes: set[str] = set()

    def run(self, data: bytes) -> str:
        """One execution; the outcome, or `finding`."""
        self.executions += 1
        self._note.write(data)
        outcome, seconds = self._timed(data)
        if len(self.slowest) < _SLOWEST or seconds > self.slowest[-1].seconds:
            # Again, since the machine has other work; and without the time that this process had
            # to wait for a processor.
            seconds = min(seconds, *(self._undisturbed(data) for _ in range(_AGAIN)))
            self._remember(data, outcome, seconds)
        if seconds > self._target.slow_s:
            self.found("slow", f"slow: {outcome}", f"{seconds:.2f} s", data)
        for cause, message in self._alarms.taken():
            self.found("log", cause, message, data)
            outcome = "finding"
        self._note.done()
        self.outcomes[outcome] += 1
        return outcome

    def _undisturbed(self, data: bytes) -> float:
        before = _delay_s()
        seconds = self._timed(data)[1]
        return max(0.0, seconds - (_delay_s() - before))

    def _timed(self, data: bytes) -> tuple[str, float]:
        began = time.perf_counter()
        try:
            outcome = self.door.run(data)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self.found("exception", cause_of(error), _text(error), data)
            outcome = "finding"
        return outcome, time.perf_counter() - began

    def _remember(self, data: bytes, outcome: str, seconds: float) -> None:
        slow = Slow(seconds, outcome, len(data), hashlib.sha256(data).hexdigest())
        if all(known.sha256 != slow.sha256 for known in self.slowest):
            self.slowest = sorted([*self.slowest, slow], key=lambda one: -one.seconds)[:_SLOWEST]
            (self._folder / "slow").mkdir(exist_ok=True)
            (self._folder / "slow" / slow.sha256[:16]).write_bytes(data)

    def found(self, kind: str, cause: str, message: str, data: bytes) -> None:
        if cause not in self._causes:
            self._causes.add(cause)
            keep(self._folder, self._target.name, kind, cause, message, data)


def keep(folder: Path, target: str, kind: str, cause: str, message: str, data: bytes) -> None:
    """Writes a finding and its input; of a cause that is known, only a smaller input."""
    name = f"{kind}-{hashlib.sha256(cause.encode()).hexdigest()[:12]}"
    place = folder / "findings"
    place.mkdir(parents=True, exist_ok=True)
    known = place / f"{name}.bin"
    if known.exists() and known.stat().st_size <= len(data):
        return
    known.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    finding = Finding(target, kind, cause, message[:_MESSAGE_CHARS], sha256, len(data))
    (place / f"{name}.json").write_text(json.dumps(asdict(finding), indent=1))


def cause_of(error: BaseException) -> str:
    """The type of an exception, and the last line of the product's own on its way."""
    place = ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        file = Path(step.tb_frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and "fuzz" not in file.parts[-3:]:
            place = f"{file.relative_to(ROOT)}:{step.tb_lineno} {step.tb_frame.f_code.co_name}"
        step = step.tb_next
    return f"{type(error).__name__} at {place or 'no line of ours'}"


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-_MESSAGE_CHARS:]


def _delay_s() -> float:
    """How long threads of this process have waited for a processor, all of them together."""
    try:
        told = [path.read_text().split() for path in Path("/proc/self/task").glob("*/schedstat")]
    except OSError:
        return 0.0  # a thread has ended meanwhile
    return sum(int(fields[1]) for fields in told if len(fields) > 1) / 1e9


def rss_bytes() -> int:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
