"""Keeps clients from hanging in a process that was forked at the wrong moment.

gRPC prepares for a fork only if no other thread is in a call. Otherwise a call in the child may
wait for ever, without its deadline, so it is refused. That of asyncio does not survive any fork.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from yolopool.errors import ForkedProcess

_WAY_OUT = "make clients after the fork, or use multiprocessing's spawn or forkserver"


class Forks:
    """What a process must know of the one that it was forked from. Its sets change atomically: a
    lock that another thread held during the fork would never be free in the child.
    """

    def __init__(self) -> None:
        self._calls = set[object]()
        # Weak: a client that nobody closes ends its connection when nobody holds it any more.
        self._async_clients = WeakSet[object]()
        self._after_call = self._after_async = False
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._after_call = self._after_call or bool(self._calls)
        self._after_async = self._after_async or bool(self._async_clients)
        self._calls, self._async_clients = set(), WeakSet()

    def check(self) -> None:
        """Raises ForkedProcess where gRPC can't be used."""
        if self._after_call:
            raise ForkedProcess(
                f"this process was forked while another thread called a pool: {_WAY_OUT}"
            )

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around a call that blocks. Raises as `check`."""
        self.check()
        call = object()
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def opened(self, client: object) -> None:
        """Notes a client for asyncio. Raises as `check`, and where asyncio's gRPC can't be used."""
        self.check()
        if self._after_async:
            raise ForkedProcess(
                f"this process was forked while an AsyncClient was open: {_WAY_OUT}"
            )
        self._async_clients.add(client)

    def closed(self, client: object) -> None:
        self._async_clients.discard(client)


forks = Forks()
