"""Replaces a worker process by another: asks for a successor, and takes over from a predecessor.

Both read the note of `hot_restart`, a file of the supervisor's choosing. What a note tells of the
replicas comes and goes by callables: nothing here knows of engines or replicas.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from worker.concurrency.cancellation import cancel
from worker.process import hot_restart
from worker.process.hot_restart import RestartNote
from yolopool.errors import YolopoolError
from yolopool.v1.types_pb2 import FencingToken
from yolopool.v1.worker_pb2 import AssignRequest

log = structlog.get_logger()
# For the load of one model that the predecessor held.
TAKE_OVER_S = 60.0


class Recycler:
    """`note` is the file, None without a supervisor. A successor needs `needed_bytes` of the
    `available_bytes` of the device, and a port of its own: with `has_fixed_port` there is one port
    for both. `highest_token` and `orders` are handed over.
    """

    def __init__(
        self,
        note: Path | None,
        has_fixed_port: bool,
        needed_bytes: Callable[[], int],
        available_bytes: Callable[[], int],
        highest_token: Callable[[], FencingToken],
        orders: Callable[[], Sequence[AssignRequest]],
    ) -> None:
        # Why the predecessor asked for this process; empty: there was none.
        self.replaces_because = ""
        self._note = note
        self._has_fixed_port = has_fixed_port
        self._needed_bytes = needed_bytes
        self._available_bytes = available_bytes
        self._highest_token = highest_token
        self._orders = orders
        self._asked = asyncio.Event()

    @property
    def is_recycling(self) -> bool:
        """Whether this process has asked for a successor."""
        return self._asked.is_set()

    def recycle(self, why: str) -> None:
        """Asks for a successor, once: beside this process where memory allows, else after it."""
        if self._asked.is_set():
            return
        needed_bytes = self._needed_bytes()
        beside = self._available_bytes() >= needed_bytes and not self._has_fixed_port
        log.error("recycling", why=why, beside=beside, needs_bytes=needed_bytes)
        if self._note is not None:
            note = RestartNote(why, beside, self._highest_token(), tuple(self._orders()))
            hot_restart.write(self._note, note)
        self._asked.set()

    async def until_end(self, told: "asyncio.Future[object]") -> object:
        """Returns when this process must end, and why: it was `told` to, or its successor can
        start only after it.
        """
        note = hot_restart.read(self._note)
        if note is None and not self._asked.is_set():
            asked = asyncio.create_task(self._asked.wait())
            await asyncio.wait((told, asked), return_when=asyncio.FIRST_COMPLETED)
            await cancel(asked)
            note = hot_restart.read(self._note)
        if told.done():
            return told.result()
        if note is not None and note.beside:
            return await told  # the supervisor tells once the successor is there
        await cancel(told)
        return "recycled"

    async def take_over(
        self,
        adopt: Callable[[FencingToken], None],
        assign: Callable[[AssignRequest], Awaitable[object]],
    ) -> None:
        """Adopts the predecessor's token and loads what it held, if it left a note. The note goes
        at the end: that tells the predecessor that it may leave.
        """
        note = hot_restart.read(self._note)
        if note is None:
            return
        self.replaces_because = note.why
        adopt(note.token)
        log.info("taking over", why=note.why, models=len(note.orders))
        for order in note.orders:
            try:
                async with asyncio.timeout(TAKE_OVER_S):
                    await assign(order)
            except (YolopoolError, TimeoutError) as error:
                model = f"{order.version.model}@{order.version.version}"
                log.warning("not taken over", model=model, why=str(error))
        hot_restart.done(self._note)
