"""Images that crash or hang a simulated device, for chaos tests.

No real device can be reached: the setting (`--sim-faults`) goes to `SimulatedBackend` alone.
"""

import os
import signal
import threading
from collections.abc import Callable

from worker.arrays import U8


def fault_injector(faults: str) -> Callable[[U8], None] | None:
    """Reads `crash=N,hang=N`: images of mean N have that fault; None for no faults."""
    if not faults:
        return None
    pairs = (part.partition("=") for part in faults.split(","))
    by_mean = {int(mean): _FAULTS[name] for name, _, mean in pairs}

    def look(image: U8) -> None:
        fault = by_mean.get(round(float(image.mean())))
        if fault is not None:
            fault()

    return look


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    threading.Event().wait()


_FAULTS: dict[str, Callable[[], None]] = {"crash": _crash, "hang": _hang}
