"""Calls into a runtime's library that compute for long, at a low priority, beside passes.

Only the call itself: a thread of low priority that has the interpreter lock and waits for a core
keeps the lock from all others, so Python's own work stays at the priority of the worker.
"""

from collections.abc import Callable
from typing import TypeVar

from worker.concurrency.own_thread import on_own_thread
from worker.hardware import allocator
from worker.hardware.host import yield_to_passes

Answer = TypeVar("Answer")


def beside_passes(call: Callable[[], Answer]) -> Answer:
    """Waits for the answer; raises what the call raises."""

    def run() -> Answer:
        yield_to_passes()
        allocator.use_heap_of_loads()
        return call()

    return on_own_thread(run)
