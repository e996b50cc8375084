"""What is fuzzed: a target is one door of the product, as a function of bytes.

A door runs the real code. It answers a word for what came of the input, such as the reason of a
documented error; whatever else it raises is a finding.
"""

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Protocol

CASES = Path(__file__).parent / "cases"
# Changes one input: takes it, where chance comes from, and all seeds of the target.
Mutate = Callable[[bytes, Random, Sequence[bytes]], bytes]


class Door(Protocol):
    """An open door. `run` answers what came of the input."""

    def run(self, data: bytes) -> str: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`share`: of the executions of a run, relative to the other targets'. `mutate` None: as bytes.
    `words`: what such inputs are made of. `reopen_after`: the executions after which the door is
    opened anew, since what it is asked to keep must not pile up; 0: never. `examples`: of a run of
    the test suite. `says`: how the causes of errors begin that it logs
    and that are meant to be. `slow_s`: an execution that takes longer is a finding.
    """

    name: str
    about: str
    open: Callable[[Path], Door]
    seeds: Callable[[], Sequence[bytes]]
    share: float
    words: tuple[bytes, ...] = ()
    mutate: Mutate | None = None
    max_bytes: int = 64 * 1024
    reopen_after: int = 0
    examples: int = 200
    says: tuple[str, ...] = ()
    slow_s: float = 1.0


@dataclass(slots=True)
class Pure:
    """A door that needs nothing open: a function, and the errors that it documents."""

    function: Callable[[bytes], Any]
    documented: tuple[type[Exception], ...]
    close: Callable[[], None] = field(default=lambda: None)

    def run(self, data: bytes) -> str:
        try:
            answer = self.function(data)
        except self.documented as error:
            return reason_of(error)
        return answer if isinstance(answer, str) else "ok"


def own_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process's doors; gRPC has one alone at a time."""
    loop = _loop()
    asyncio.set_event_loop(loop)
    return loop


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def reason_of(error: Exception) -> str:
    """The reason of a documented error, or its type."""
    return str(getattr(error, "reason", type(error).__name__))


# In which module of `doors` each target is. Imported when asked for: the import itself may be
# watched for coverage.
MODULES = {
    "images": "images",
    "manifests": "packs",
    "skeletons": "skeletons",
    "checkpoints": "checkpoints",
    "graphs": "graphs",
    "graph-runs": "graphs",
    "calibration": "graphs",
    "child-lines": "child_lines",
    "calls": "calls",
    "wire": "wire",
    "worker": "worker_wire",
    "http": "http",
    "guarded": "http",
    "gate-zips": "gates",
    "labels": "gates",
    "references": "texts",
    "schedules": "texts",
    "options": "texts",
    "tensors": "texts",
    "pbtxt": "texts",
    "fleet-files": "fleet_files",
}


def target(name: str) -> Target:
    """The target of this name. Raises KeyError."""
    module = importlib.import_module(f"tests.fuzz.doors.{MODULES[name]}")
    found: Target = module.TARGETS[name]
    return found


def cases(name: str) -> dict[str, bytes]:
    """The inputs that once were findings, by name."""
    return {path.stem: path.read_bytes() for path in sorted((CASES / name).glob("*.bin"))}
