"""The one load that runs beside passes: its steps, and its task.

A load that takes seconds of processor time runs on a thread of its own, and only its memory is
measured on the device thread. It can't be stopped.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from worker.backends.base import Backend, LoadedModel, Loading
from worker.concurrency.reply import Reply
from worker.concurrency.stall_detector import DeviceActivity
from worker.engine.engine import Engine
from worker.engine.jobs import Job
from worker.replicas.ledger import Ledger
from worker.replicas.replica import Replica
from worker.replicas.warmup import other_answer

Answer = TypeVar("Answer")
# For the undoing of a load that is left, at the end of the process.
LEAVE_S = 2.0


class SideLoad:
    """Runs on the event loop, but for `activity` and what says "on the device thread"."""

    def __init__(self, engine: Engine, backend: Backend, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._backend = backend
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._key = ""
        self._activity: DeviceActivity | None = None
        # Of the last load; what it measures is of use until its end.
        self._loading: Loading | None = None

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
        self._task.add_done_callback(lambda _: self._ended(done))

    def _ended(self, done: Callable[[], None]) -> None:
        self._loading = None
        done()

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
        """Leaves the load to the end of the process. Returns after LEAVE_S at the latest: the
        device thread, which undoes it, may hang.
        """
        if self._task is not None:
            self._task.cancel()
            ended, _ = await asyncio.wait((self._task,), timeout=LEAVE_S)
            for task in ended:
                task.cancelled() or task.exception()  # else asyncio logs it

    async def make(self, replica: Replica, ask: bool) -> tuple[Callable[[], LoadedModel], float]:
        """Runs the steps before the last, which is returned for the device thread; and the seconds
        they took. With `ask`, a model that answers otherwise than at its import is refused with
        LoadFailed. Raises as `Backend.load` and as a pass; nothing is left on the device then.
        """
        pack = replica.manifest_pack
        loading_of = self._backend.loads_beside(pack.manifest)
        assert loading_of is not None, "it suits"
        began = self._clock()
        self._activity = DeviceActivity(f"the load of {replica.key}", began, None)
        try:
            self._loading = loading = loading_of(pack, replica.order.precision)
            await _on_a_thread(loading.prepare)
            await self._engine.job(loading.begin)
            try:
                await _on_a_thread(loading.make)
                wrong = await _on_a_thread(partial(loading.try_out, replica.shape, ask))
                if wrong:
                    raise other_answer(wrong)
            except Exception:
                # Not when this is cancelled: a step that is under way may still use it.
                await _on_a_thread(loading.drop)
                raise
        finally:
            self._activity = None
        return loading.end, self._clock() - began

    def came(self, model: LoadedModel) -> None:
        """On the device thread: a model was loaded; its bytes are not those of the load here."""
        if (loading := self._loading) is not None:
            loading.leave_out(_own_bytes(model))

    def goes(self, model: LoadedModel) -> None:
        """On the device thread: a model is about to be closed; see `came`."""
        if (loading := self._loading) is not None:
            loading.leave_out(-_own_bytes(model))

    def activity(self) -> DeviceActivity | None:
        """The load that runs now, for the watchdog; on any thread."""
        return self._activity


def _own_bytes(model: LoadedModel) -> int:
    """What it allocated: the memory of its pack is not its own."""
    return model.private_bytes + (0 if model.uses_host_memory else model.weights_bytes)


async def _on_a_thread(call: Callable[[], Answer]) -> Answer:
    reply: Reply[Answer] = Reply()
    Thread(target=Job(call, reply).run, name="load", daemon=True).start()
    try:
        return await reply.future
    finally:
        del reply  # its error would hold this frame, and this frame the reply
