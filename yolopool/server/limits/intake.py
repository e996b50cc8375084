"""The messages of calls on their way in, and answers on their way out: how many bytes are held, and
who is cut off for being slow.
"""

import asyncio
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from yolopool.errors import DeadlineExceeded, InvalidMessage, RequestMemoryFull, YolopoolError
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.limits.connections import end_connections
from yolopool.server.limits.grpc_limits import GrpcLimits
from yolopool.server.limits.heap import give_back
from yolopool.server.limits.message_shape import check, input_of

log = structlog.get_logger()

# Smaller messages are counted and let in always: health, heartbeats, what an operator asks.
ALWAYS_BYTES = 64 * 1024
RETRY_AFTER_S = 1.0
# How often memory is looked at, and how many times before slow callers are.
LOOK_S, LOOKS = 0.25, 4
_STATM, _PAGE_BYTES = Path("/proc/self/statm"), resource.getpagesize()

Read = Callable[[bytes], Any]


class Intake:
    """What the calls of one server share. `watch` until cancelled."""

    def __init__(self, limits: GrpcLimits, budget: ByteBudget) -> None:
        self.budget = budget
        self._limits = limits
        # The calls whose message or answer is on its way, and those that send a stream.
        self.moving: set[Arrival] = set()

    async def watch(self) -> None:
        loop, patience_s = asyncio.get_running_loop(), self._limits.message_timeout_s
        while True:
            was_full = False
            for _ in range(LOOKS):
                await asyncio.sleep(LOOK_S)
                try:
                    was_full |= self._bound_memory(loop.time() - LOOK_S)
                except OSError as error:  # it can open no file now: the next look may
                    log.warning("memory can't be looked at", why=str(error))
            late = [one for one in self.moving if one.is_late(loop.time() - patience_s)]
            self._cut_off(late, DeadlineExceeded(
                f"the message of the call did not arrive in {patience_s:g} s: send it at once"
            ))  # fmt: skip
            if self.budget.large_ones_ended() or late or was_full:
                await asyncio.to_thread(give_back)

    def _bound_memory(self, before_s: float) -> bool:
        """Whether the process has more than it may. What calls have sent of their messages so far
        is in no budget: gRPC keeps it until they are whole.
        """
        if not 0 < self._limits.max_memory_bytes < held_bytes():
            return False
        waiting = [one for one in self.moving if one.since_s <= before_s]
        self._cut_off(waiting, RequestMemoryFull(
            "this process has no memory for more messages that are on their way: try again",
            retry_after_s=RETRY_AFTER_S,
        ))  # fmt: skip
        return True

    def _cut_off(self, late: "list[Arrival]", error: YolopoolError) -> None:
        if not late:
            return
        # One look for all of them: callers may have thousands of calls and connections.
        try:
            ended = end_connections({one.peer for one in late if one.keeps_connection})
        except OSError as failed:
            log.warning("connections can't be ended", why=str(failed))
            ended = set()
        for arrival in late:
            arrival.cut_off(error, ended)
        log.warning("calls were cut off", calls=len(late), reason=error.reason)


class Arrival:
    """What one call sends. Made in the call's task."""

    __slots__ = (
        "_bytes", "_context", "_cut_off", "_intake", "_is_answered", "_is_read", "_is_stream",
        "_method", "_read", "_task", "since_s",
    )  # fmt: skip

    def __init__(self, intake: Intake, method: str, read: Read, is_stream: bool) -> None:
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._intake, self._method, self._read, self._task = intake, method, read, task
        self._is_stream, self._is_read, self._is_answered = is_stream, False, False
        self._bytes = 0
        self._context: Any = None
        self._cut_off: YolopoolError | None = None
        self.since_s = task.get_loop().time()
        task.add_done_callback(self._ended)

    async def message(self, messages: Any, context: Any) -> Any:
        """The message of the call, once it is here; of one that sends a stream, its `messages`.
        Raises why it is not here, or can't be read.
        """
        moving = self._intake.moving
        moving.add(self)
        self._context = context
        if self._is_stream:
            return messages
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if self._cut_off is None:
                raise
            self._task.uncancel()
            raise self._cut_off from None
        finally:
            moving.discard(self)
        if message is grpc.aio.EOF:
            raise InvalidMessage(f"the call of {self._method} ended before its message: send one")
        return message

    def read(self, data: bytes) -> Any:
        """What gRPC reads a message with."""
        if self._is_stream:  # whoever keeps its messages counts their bytes
            self.since_s = self._task.get_loop().time()
            return _message(data, self._method, self._read)
        self._is_read = True
        size, budget = len(data), self._intake.budget
        if not budget.take(size):
            if size > ALWAYS_BYTES:
                raise no_room(size)
            budget.taken_bytes += size
        self._bytes = size
        return _message(data, self._method, self._read)

    def answers(self) -> None:
        """Its answer is on its way."""
        self._is_answered = True
        self.since_s = self._task.get_loop().time()
        self._intake.moving.add(self)

    def is_late(self, before_s: float) -> bool:
        """A stream may be silent for as long as it likes, until it is answered."""
        return (self._is_answered or not self._is_stream) and self.since_s <= before_s

    @property
    def peer(self) -> str:
        return str(self._context.peer())

    @property
    def keeps_connection(self) -> bool:
        """Whether nothing ends the call but the end of its connection: one that sends a stream, and
        one whose caller takes no answer.
        """
        return self._is_read or self._is_stream

    def cut_off(self, error: YolopoolError, ended: set[str]) -> None:
        """Ends the call with the error, unless its connection is among those that `ended`."""
        self._cut_off = error
        if not (self.keeps_connection and self.peer in ended):
            self._task.cancel()

    def _ended(self, _: object) -> None:
        self._intake.moving.discard(self)
        if self.keeps_connection:
            self._intake.budget.give(self._bytes)
        else:
            self._intake.budget.left()


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
