"""The messages of calls on their way in, and answers on their way out: how many bytes are held, and
who is cut off for being slow.
"""

import asyncio
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from yolopool.errors import InvalidMessage, RequestMemoryFull, YolopoolError
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.limits.grpc_limits import GrpcLimits
from yolopool.server.limits.message_shape import check, input_of
from yolopool.server.open_calls import typed_error

log = structlog.get_logger()

# Smaller messages are counted and let in always: health, heartbeats, what an operator asks.
ALWAYS_BYTES = 64 * 1024
RETRY_AFTER_S = 1.0
LOOK_S = 1.0
_STATM, _PAGE_BYTES = Path("/proc/self/statm"), resource.getpagesize()

Read = Callable[[bytes], Any]


class Unreadable:
    """Stands for a message that could not be read, until the call has a context to say why."""

    __slots__ = ("error",)

    def __init__(self, error: YolopoolError) -> None:
        self.error = error


class Intake:
    """What the calls of one server share. `watch` until cancelled."""

    def __init__(self, limits: GrpcLimits, budget: ByteBudget) -> None:
        self.budget = budget
        self.cut_off = 0
        self._limits = limits
        # The calls whose message or answer is on its way, and since when; those that send a stream,
        # and when their last message was here.
        self.moving: dict[asyncio.Task[Any], float] = {}
        self._streams: dict[asyncio.Task[Any], float] = {}

    def reader(self, method: str, read: Read) -> Read:
        """Of the messages of a stream, made in the call's task. It raises why one can't be read."""
        task, streams = _this_task(), self._streams
        time = task.get_loop().time

        def read_one(data: bytes) -> Any:
            streams[task] = time()
            return _message(data, method, read)

        streams[task] = time()
        task.add_done_callback(streams.pop)
        return read_one

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            limits, now_s = self._limits, loop.time()
            self._cut_off(self.moving, now_s - limits.message_timeout_s, "they took too long")
            if limits.max_memory_bytes and held_bytes() > limits.max_memory_bytes:
                # What they have sent so far is in no budget: gRPC keeps it until it is whole.
                calls = {**self.moving, **self._streams}
                self._cut_off(calls, now_s - LOOK_S, "there is no memory for what they send")

    def _cut_off(self, calls: Mapping[asyncio.Task[Any], float], before_s: float, why: str) -> None:
        late = [task for task, since in calls.items() if since <= before_s]
        for task in late:
            task.cancel()
        if late:
            self.cut_off += len(late)
            log.warning("calls were cut off", calls=len(late), why=why)


class Arrival:
    """The message of a call that sends one. Made in the call's task, before the message is read."""

    __slots__ = ("_bytes", "_intake", "_loop", "_method", "_read", "_task")

    def __init__(self, intake: Intake, method: str, read: Read) -> None:
        task = _this_task()
        self._intake, self._method, self._read, self._task = intake, method, read, task
        self._bytes = 0
        self._loop = task.get_loop()
        intake.moving[task] = self._loop.time()
        task.add_done_callback(self._ended)

    def read(self, data: bytes) -> Any:
        """The message, or what stands for it."""
        del self._intake.moving[self._task]
        size, budget = len(data), self._intake.budget
        if not budget.take(size):
            if size > ALWAYS_BYTES:
                return Unreadable(no_room(size))
            budget.taken_bytes += size
        self._bytes = size
        try:
            return _message(data, self._method, self._read)
        except YolopoolError as error:
            return Unreadable(error)

    def answered(self) -> None:
        """Its answer is on its way."""
        self._intake.moving[self._task] = self._loop.time()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._intake.moving.pop(task, None)
        self._intake.budget.give(self._bytes)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "a call runs in a task"
    return task


def no_room(size: int) -> RequestMemoryFull:
    """Of a message of so many bytes."""
    return RequestMemoryFull(
        f"this process holds as many bytes of requests as it may, and has no room for {size} more: "
        "try again, or raise --max-request-memory-bytes",
        retry_after_s=RETRY_AFTER_S,
    )


def held_bytes() -> int:
    """The memory that this process has."""
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES


def _message(data: bytes, method: str, read: Read) -> Any:
    try:
        check(data, input_of(method))
        return read(data)
    except DecodeError as error:
        raise InvalidMessage(
            f"what was sent is no message of {method}: send one as the protos have it ({error})"
        ) from None
    except Exception as error:
        raise typed_error(error, method) from None
