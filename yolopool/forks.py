"""Keeps clients from hanging in a process that was forked at the wrong moment.

gRPC prepares for a fork only if no thread is inside it. In a child that was forked during a call, a
call would wait for ever, without its deadline: it is refused instead.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from yolopool.errors import ForkedProcess


class Forks:
    """What this process must know of itself. Its sets change atomically: a lock that another thread
    held during the fork would never be free in the child.
    """

    def __init__(self) -> None:
        self._inside: set[object] = set()  # one for each use of gRPC that has not ended
        self._unusable = False
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._unusable = self._unusable or bool(self._inside)
        self._inside = set()

    def check(self, made_in: int) -> None:
        """Raises ForkedProcess where gRPC, or a client of the process `made_in`, can't be used."""
        if self._unusable:
            raise ForkedProcess(
                "this process was forked while another thread called a pool, and can't call one "
                "itself: fork earlier, or use multiprocessing's spawn or forkserver"
            )
        if made_in != os.getpid():
            raise ForkedProcess(
                "this client was made before the process was forked: make a client after the fork"
            )

    def enter(self, made_in: int) -> object:
        """Begins a use of gRPC, for `leave`. Raises as `check`."""
        self.check(made_in)
        use = object()
        self._inside.add(use)
        return use

    def leave(self, use: object) -> None:
        self._inside.discard(use)

    @contextmanager
    def using(self, made_in: int) -> Iterator[None]:
        use = self.enter(made_in)
        try:
            yield
        finally:
            self.leave(use)


forks = Forks()
