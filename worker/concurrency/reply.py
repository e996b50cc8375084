"""Answers of other threads to callers who wait on the event loop."""

import asyncio
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from yolopool.errors import YolopoolError

T = TypeVar("T")


class Reply(Generic[T]):
    """Where one answer goes, made on the event loop that waits for it; may be called on any thread.
    The first answer counts, and a caller who went away hears nothing.
    """

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def __call__(self, answer: T | None, error: Exception | None) -> None:
        deliver([(self, answer, error)])

    def fail(self, error: Exception) -> None:
        """Tells an error, and clears its frames: whoever keeps it would keep their images. One of
        ours goes without them: they have this reply, which has the error, and would be kept until
        the ring is collected.
        """
        traceback.clear_frames(error.__traceback__)
        self(None, error.with_traceback(None) if isinstance(error, YolopoolError) else error)


def deliver(answers: Iterable[tuple[Reply[Any], Any, Exception | None]]) -> None:
    """All of them, of one event loop, in one word: each word wakes its thread, which then wants the
    interpreter lock of the one that answers.
    """
    answers = tuple(answers)
    if answers:
        with suppress(RuntimeError):  # the loop ended, and its callers with it
            answers[0][0].future.get_loop().call_soon_threadsafe(_settle, answers)


def _settle(answers: Iterable[tuple[Reply[Any], Any, Exception | None]]) -> None:
    for reply, answer, error in answers:
        if reply.future.done():
            continue
        if error is None:
            reply.future.set_result(answer)
        else:
            reply.future.set_exception(error)
