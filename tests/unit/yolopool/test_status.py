"""Errors that a server did not make itself are typed too."""

from typing import Any

import grpc
import pytest

from yolopool.errors import Internal, MessageTooLarge, ResourceExhausted, Unavailable
from yolopool.status import error_from_rpc


class Failed(grpc.RpcError):
    """A call that gRPC itself ended."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return ()


@pytest.mark.parametrize("who", ["Sent", "Received", "CLIENT: Sent", "SERVER: Received"])
def test_a_message_above_the_limit_is_not_worth_another_try(who: str) -> None:
    said = f"{who} message larger than max (134223369 vs. 134217728)"
    error = error_from_rpc(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, said))
    assert type(error) is MessageTooLarge
    assert (error.reason, error.retryable) == ("MESSAGE_TOO_LARGE", False)


def test_what_is_exhausted_otherwise_may_be_tried_again() -> None:
    error = error_from_rpc(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams"))
    assert type(error) is ResourceExhausted
    assert error.retryable


def test_a_call_that_ended_under_a_message_is_worth_another_try() -> None:
    """gRPC for asyncio tells this in place of the server's own word, such as DRAINING."""
    error = error_from_rpc(Failed(grpc.StatusCode.INTERNAL, "Internal error from Core"))
    assert type(error) is Unavailable
    assert error.retryable
    other = error_from_rpc(Failed(grpc.StatusCode.INTERNAL, "internal error 12ab"))
    assert (type(other), other.retryable) == (Internal, False)
