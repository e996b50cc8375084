"""Waiting for what another process does, with a bound."""

import time
from collections.abc import Callable


def until(what: str, holds: Callable[[], object], limit_s: float = 60.0) -> None:
    """Waits until a call answers true."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {limit_s:g} s"
        time.sleep(0.02)
