"""A call that was sent and is not answered yet."""

import contextlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc

from yolopool.client.calls import Call
from yolopool.status import error_from_rpc

Answer = TypeVar("Answer")


class PendingCall(Generic[Answer]):
    """A call in flight, and the mark of it for forks."""

    def __init__(
        self, future: Any, call: Call[Answer], proxy: str, mark: contextlib.ExitStack
    ) -> None:
        self._future, self._call, self._proxy, self._mark = future, call, proxy, mark

    def result(self) -> Answer:
        try:
            reply = self._future.result()
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._proxy) from None
        finally:
            self._mark.close()
        return self._call.read(reply)

    def cancel(self) -> None:
        self._future.cancel()
        self._mark.close()

    def on_done(self, told: Callable[[], None]) -> None:
        self._future.add_done_callback(lambda future: told())
