"""The one load that runs beside passes: its steps, and its task.

A load that takes seconds of processor time runs on a thread of its own, and only its memory is
measured on the device thread. It can't be stopped.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any

from worker.backends.base import Backend, LoadedModel
from worker.concurrency.cancellation import cancel
from worker.concurrency.reply import Reply
from worker.concurrency.stall_detector import DeviceActivity
from worker.engine.engine import Engine
from worker.engine.jobs import Job
from worker.replicas.ledger import Ledger
from worker.replicas.replica import Replica


class SideLoad:
    """Runs on the event loop, but for `activity`."""

    def __init__(self, engine: Engine, backend: Backend, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._backend = backend
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._key = ""
        self._activity: DeviceActivity | None = None

    @property
    def is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def suits(self, replica: Replica) -> bool:
        """Whether the replica is loaded so here."""
        return self._backend.loads_beside(replica.manifest_pack.manifest) is not None

    def delays(self, replica: Replica, ledger: Ledger) -> bool:
        """Whether a load is under way for which this replica's would have to wait."""
        return self.is_busy and not ledger.holds(replica.key) and self.suits(replica)

    def start(
        self, replica: Replica, load: Coroutine[Any, Any, None], done: Callable[[], None]
    ) -> None:
        """Runs the load of a replica as a task; calls `done` at its end."""
        assert not self.is_busy, "one at a time"
        self._key = replica.key
        self._task = asyncio.create_task(load, name="load beside passes")
        self._task.add_done_callback(lambda _: done())

    def check(self) -> None:
        """Raises the error of a load that ended by a bug."""
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()

    async def until_done(self, key: str) -> None:
        """Waits for the load of a replica, if it is under way."""
        if self._task is not None and self._key == key:
            await asyncio.wait((self._task,))

    async def cancel(self) -> None:
        """Leaves the load to the end of the process."""
        if self._task is not None:
            with suppress(Exception):
                await cancel(self._task)

    async def make(self, replica: Replica) -> tuple[Callable[[], LoadedModel], float]:
        """Runs the steps before the last, which is returned for the device thread; and the seconds
        they took. Raises as `Backend.load`.
        """
        pack = replica.manifest_pack
        loading_of = self._backend.loads_beside(pack.manifest)
        assert loading_of is not None, "it suits"
        began = self._clock()
        self._activity = DeviceActivity(f"the load of {replica.key}", began, None)
        try:
            loading = loading_of(pack, replica.order.precision)
            await _on_a_thread(loading.prepare)
            await self._engine.job(loading.begin)
            await _on_a_thread(loading.make)
        finally:
            self._activity = None
        return loading.end, self._clock() - began

    def activity(self) -> DeviceActivity | None:
        """The load that runs now, for the watchdog; on any thread."""
        return self._activity


async def _on_a_thread(call: Callable[[], None]) -> None:
    reply: Reply[None] = Reply()
    Thread(target=Job(call, reply).run, name="load", daemon=True).start()
    try:
        await reply.future
    finally:
        del reply  # its error would hold this frame, and this frame the reply
