"""Images that crash or hang a simulated device, so that chaos tests have some. No real device has
a way here: the setting (`--sim-faults`) reaches `SimulatedBackend` alone.
"""

import os
import signal
import threading
from collections.abc import Callable

from worker.backends.base import U8


def fault_injector(faults: str) -> Callable[[U8], None] | None:
    """Reads `crash=N,hang=N`: what images of mean N do; None for no faults."""
    if not faults:
        return None
    words = (part.partition("=") for part in faults.split(","))
    acts = {int(mean): _ACTS[name] for name, _, mean in words}

    def look(image: U8) -> None:
        act = acts.get(round(float(image.mean())))
        if act is not None:
            act()

    return look


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    threading.Event().wait()


_ACTS: dict[str, Callable[[], None]] = {"crash": _crash, "hang": _hang}
