"""Errors on the wire: google.rpc.Status with ErrorInfo (reason, details) and RetryInfo.

Both directions are here, so that clients and servers cannot drift apart.
"""

from collections.abc import Iterable
from typing import Any, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from yolopool.error_table import rebuild
from yolopool.errors import MessageTooLarge, OutOfMemory, YolopoolError

DOMAIN = "yolopool"
DETAILS_KEY = "grpc-status-details-bin"
_RETRYABLE = "retryable"
# What gRPC itself says.
_NOT_SENT, _NO_ANSWER = "Exception serializing request!", "Deadline Exceeded"
_TOO_LARGE = ("larger than max", "metadata size exceeds")
_CALL_ENDED = "Internal error from Core"
_OF_CONNECTION = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
)


def grpc_code(error: YolopoolError) -> grpc.StatusCode:
    """The gRPC status code of an error."""
    return grpc.StatusCode[error.code]


def trailing_metadata(error: YolopoolError) -> tuple[tuple[str, bytes], ...]:
    """The metadata that a server adds to code and message, for `error_from_rpc` to read."""
    return ((DETAILS_KEY, to_bytes(error)),)


def to_bytes(error: YolopoolError) -> bytes:
    """The whole error as a google.rpc.Status."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.details)
    info.metadata[_RETRYABLE] = "true" if error.retryable else "false"
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    status.details.add().Pack(info)
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return cast("bytes", status.SerializeToString())


def from_bytes(data: bytes) -> YolopoolError:
    """The typed error of `to_bytes`."""
    status = status_pb2.Status.FromString(data)
    return _typed(code_pb2.Code.Name(status.code), status.message, status.details)


def error_from_rpc(error: grpc.RpcError, proxy: str = "") -> YolopoolError:
    """The typed error of a failed call; a failure of the connection has its code as reason, and
    names the variable of the `proxy` that it went through.
    """
    # grpcio's concrete call errors are both RpcError and Call; the aio one has the same methods.
    call = cast("Any", error)
    code: grpc.StatusCode = call.code()
    message: str = call.details() or code.name
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            return _typed(code.name, message, status_pb2.Status.FromString(value).details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and any(said in message for said in _TOO_LARGE):
        # Of gRPC itself, on either side: the same message would be refused again.
        return MessageTooLarge(f"{message}: ask for less at once, or send less")
    if code is grpc.StatusCode.CANCELLED:
        # The server cancelled the call because it is stopping: a caller who cancels reads no error.
        return _typed("UNAVAILABLE", f"{message}: the server is stopping, retry", ())
    if code is grpc.StatusCode.UNKNOWN and MemoryError.__name__ in message:
        # gRPC could not even read the request, so no code of the server saw it.
        return OutOfMemory("the server has no memory for this request: try again, or a smaller one")
    if code is grpc.StatusCode.INTERNAL and message == _NOT_SENT:
        return OutOfMemory("this process has no memory to serialise the request: give it more")
    if code is grpc.StatusCode.INTERNAL and message == _CALL_ENDED:
        # Of grpc.aio: a message of a stream found the call ended, and hides why the server did so.
        return _typed("UNAVAILABLE", "the call ended while a message was being sent: retry", ())
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and message == _NO_ANSWER:
        message = "no answer came in time: try again, or allow more time"
    if proxy and code in _OF_CONNECTION:
        message += f" (through the proxy of {proxy}: to reach the pool without, set no_proxy=HOST)"
    return _typed(code.name, message, ())


def _typed(code: str, message: str, packed: Iterable[Any]) -> YolopoolError:
    reason, details, retryable, retry_after_s = "", {}, None, None
    for detail in packed:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, details = info.reason, dict(info.metadata)
            retryable = details.pop(_RETRYABLE, "false") == "true"
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return rebuild(code, reason or code, message, retryable, retry_after_s, details)
