"""Errors on the wire: google.rpc.Status with ErrorInfo (reason, details) and RetryInfo.

The only place that knows both sides, so that client and servers cannot drift apart.
"""

from typing import Any, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from yolopool.errors import YolopoolError, rebuild

DOMAIN = "yolopool"
DETAILS_KEY = "grpc-status-details-bin"
_RETRYABLE = "retryable"


def grpc_code(error: YolopoolError) -> grpc.StatusCode:
    """The gRPC status code of an error."""
    return grpc.StatusCode[error.code]


def trailing_metadata(error: YolopoolError) -> tuple[tuple[str, bytes], ...]:
    """What a server sends beside code and message, for `error_from_rpc` to read."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.details)
    info.metadata[_RETRYABLE] = "true" if error.retryable else "false"
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    status.details.add().Pack(info)
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return ((DETAILS_KEY, status.SerializeToString()),)


def error_from_rpc(error: grpc.RpcError) -> YolopoolError:
    """Rebuilds the typed error of a failed call; transport failures keep their code as reason."""
    # grpcio's concrete call errors are both RpcError and Call; the aio one has the same methods.
    call = cast("Any", error)
    code: grpc.StatusCode = call.code()
    message: str = call.details() or code.name
    reason, details, retryable, retry_after_s = "", {}, None, None
    for key, value in call.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                reason, details = info.reason, dict(info.metadata)
                retryable = details.pop(_RETRYABLE, "false") == "true"
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return rebuild(code.name, reason or code.name, message, retryable, retry_after_s, details)
