"""Images that crash, hang or break a simulated device, for tests.

No real device can be reached: the setting (`--sim-faults`) goes to `SimulatedBackend` alone.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping

from worker.arrays import U8
from worker.postprocess.outputs import Candidates, not_finite

# As torch words it, with the advice that it always adds.
STICKY = (
    "CUDA error: an illegal memory access was encountered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call"
)


class Faults:
    """Reads `crash=N,hang=N,sticky=N,forget=N,nan=N`: images of mean N have that fault. `look` is
    called with each image and `step` before each load and pass; once it is broken, a device fails
    all of them. After `forget` no model finds anything until one is loaded. `answer` is what
    becomes of an answer.
    """

    def __init__(self, faults: str) -> None:
        pairs = (part.partition("=") for part in faults.split(",") if part)
        made: Mapping[str, Callable[[], None]] = {
            "crash": _crash, "hang": _hang, "sticky": self._break,
            "forget": self._forget, "nan": lambda: None,
        }  # fmt: skip
        self._by_mean = {int(mean): made[name] for name, _, mean in pairs}
        self._nan_means = {int(mean) for name, _, mean in pairs if name == "nan"}
        self._is_broken = self._has_forgotten = False

    def look(self, image: U8) -> None:
        fault = self._by_mean.get(round(float(image.mean())))
        if fault is not None:
            fault()

    def step(self, name: str) -> None:
        if self._is_broken:
            raise RuntimeError(STICKY)
        if name == "load":
            self._has_forgotten = False

    def answer(self, image: U8, found: Candidates) -> Candidates:
        if round(float(image.mean())) in self._nan_means:
            return not_finite()
        if self._has_forgotten:
            return Candidates(found.xyxy[:0], found.confidence[:0], found.class_id[:0])
        return found

    def _forget(self) -> None:
        self._has_forgotten = True

    def _break(self) -> None:
        self._is_broken = True
        self.step("run")


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    threading.Event().wait()
