"""Hands the results of other threads to callers that wait on the event loop."""

import asyncio
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from yolopool.errors import YolopoolError

T = TypeVar("T")


class Reply(Generic[T]):
    """One result for a caller on the event loop, which makes the reply. Any thread may call it. The
    first call counts; if the caller has left, nothing happens.
    """

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def __call__(self, answer: T | None, error: Exception | None) -> None:
        deliver([(self, answer, error)])

    def fail(self, error: Exception) -> None:
        """Replies with an error whose frames are cleared: whoever keeps the error would keep the
        images in them. A YolopoolError loses its traceback too: its frames hold this reply, which
        holds the error, and that cycle would live until garbage collection.
        """
        traceback.clear_frames(error.__traceback__)
        self(None, error.with_traceback(None) if isinstance(error, YolopoolError) else error)


def deliver(answers: Iterable[tuple[Reply[Any], Any, Exception | None]]) -> None:
    """Settles replies of one event loop in one call: each call wakes the loop's thread, which then
    competes with this thread for the interpreter lock.
    """
    answers = tuple(answers)
    if answers:
        with suppress(RuntimeError):  # the loop is closed, and its callers are gone
            answers[0][0].future.get_loop().call_soon_threadsafe(_settle, answers)


def _settle(answers: Iterable[tuple[Reply[Any], Any, Exception | None]]) -> None:
    for reply, answer, error in answers:
        if reply.future.done():
            continue
        if error is None:
            reply.future.set_result(answer)
        else:
            reply.future.set_exception(error)
