"""A stream of frames for threads: one takes frames from the caller's iterator, gRPC's sends them,
and the caller's own reads the answers.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from yolopool.client.access.credentials import Metadata
from yolopool.client.images import ImageLike
from yolopool.client.streams.frames import Frame, FrameResult, StreamMessages, as_frame
from yolopool.client.streams.outbox import Outbox
from yolopool.client.streams.reopening import Reopening
from yolopool.errors import CredentialsInvalid, Unavailable, YolopoolError
from yolopool.status import error_from_rpc

_END: Any = object()


class FrameStream:
    """`results` it once. `method` is the stub's. It holds at most a window of frames, and one more
    that was taken; the frames' iterator is never asked by two threads. `credentials` are asked for
    at each connection: one whose token expired is opened again with the next.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        messages: StreamMessages,
        frames: Iterable[ImageLike | Frame],
        patience_s: float,
        proxy: str,
        credentials: Callable[[], Metadata] = tuple,
    ) -> None:
        opening = messages.opening
        self._method = method
        self._messages = messages
        self._frames = frames
        self._patience_s = patience_s
        self._proxy = proxy
        self._credentials = credentials
        self._shown: Metadata = ()
        self._changed = threading.Condition()
        # Below the lock of `_changed`.
        self._outbox = Outbox[Frame](opening.newest_only, opening.window)
        self._connection = 0
        self._closed = False
        self._broke: BaseException | None = None

    def results(self) -> Iterator[FrameResult]:
        """Ends when the caller's frames have ended and each has its result; raises what their
        iterator raised, after the results of the frames before.
        """
        taking = threading.Thread(target=self._take_all, name="frames of a stream", daemon=True)
        taking.start()
        reopening = Reopening(self._patience_s)
        call: Any = None
        try:
            while not self._outbox.done:
                reopening.opened(time.monotonic())
                self._shown = self._credentials()
                call = self._method(self._requests(self._connection), metadata=self._shown)
                try:
                    for answer in self._answers(call):
                        reopening.answered()
                        if (result := self._result(answer)) is not None:
                            yield result
                except grpc.RpcError as error:
                    self._reopen(reopening, error_from_rpc(error, self._proxy))
                else:
                    if not self._outbox.done:
                        self._reopen(reopening, Unavailable("the stream ended before its frames"))
            if self._broke is not None:
                raise self._broke
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            if call is not None:
                call.cancel()

    def _reopen(self, reopening: Reopening, error: YolopoolError) -> None:
        """Waits and makes ready for the next connection, or raises the error."""
        pause_s = reopening.pause_s(time.monotonic())
        expired = isinstance(error, CredentialsInvalid) and self._credentials() != self._shown
        if not (expired or isinstance(error, Unavailable)) or pause_s is None:
            raise error
        with self._changed:
            self._connection += 1
            self._outbox.lost()
            self._changed.notify_all()
        time.sleep(pause_s)

    # --- from the caller's iterator ---------------------------------------------------------

    def _take_all(self) -> None:
        try:
            frames = iter(self._frames)
            while self._wait_for_room():
                frame = next(frames, _END)
                if frame is _END:
                    break
                with self._changed:
                    self._outbox.take(as_frame(frame), time.monotonic())
                    self._changed.notify_all()
        except BaseException as error:
            self._broke = error
        finally:
            with self._changed:
                self._outbox.ended = True
                self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._outbox.may_take)
            return not self._closed

    # --- to the server ----------------------------------------------------------------------

    def _requests(self, connection: int) -> Iterator[Any]:
        """What gRPC's thread sends on one connection."""
        yield self._messages.first()
        while True:
            with self._changed:
                while True:
                    if self._closed or self._connection != connection or self._outbox.sent_all:
                        return
                    now = time.monotonic()
                    outgoing = self._outbox.next(now)
                    if outgoing is not None:
                        break
                    self._changed.wait(self._outbox.again_s(now))
            yield self._messages.frame(outgoing)

    # --- from the server --------------------------------------------------------------------

    def _answers(self, call: Any) -> Iterator[Any]:
        """The answers of one connection; the reader waits while the next is asked for."""
        replies = iter(call)
        while True:
            self._reader_waits(True)
            answer = next(replies, None)
            self._reader_waits(False)
            if answer is None:
                return
            yield answer

    def _reader_waits(self, waits: bool) -> None:
        with self._changed:
            self._outbox.reader_waits_since = time.monotonic() if waits else None
            self._changed.notify_all()

    def _result(self, answer: Any) -> FrameResult | None:
        with self._changed:
            outgoing = None
            if answer.WhichOneof("outcome"):
                outgoing = self._outbox.answered(answer.frame_id)
            self._outbox.received(answer.received, answer.held)
            dropped = self._outbox.dropped(answer.frame_id)
            self._changed.notify_all()
        if outgoing is None:
            return None
        return self._messages.result(outgoing, answer, dropped, time.monotonic())
