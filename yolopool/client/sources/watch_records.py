"""Watches: their records for callers, and the calls about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from yolopool.client.calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, Call
from yolopool.v1 import watches_pb2


@dataclass(frozen=True, slots=True)
class Watch:
    """A folder or prefix whose new files become versions of `model`. `known_files`: how many it
    knows; `error`: why its last look failed, empty if it did not.
    """

    name: str
    uri: str
    model: str
    patterns: tuple[str, ...]
    profile: str
    every_s: float
    settle_s: float
    known_files: int
    by: str
    error: str


def set_watch(
    name: str,
    uri: str,
    model: str,
    *,
    patterns: Sequence[str] = (),
    profile: str = "",
    every_s: float = 0.0,
    settle_s: float = 0.0,
) -> Call[Watch]:
    """Watches a folder (file:///models/) or a prefix of S3 (s3://bucket/models/): the newest file
    there, and each that comes later, becomes a version of `model`. Replaces the watch of its name.

    `patterns`: of file names (default *.pt and *.onnx); `every_s`: seconds between two looks (0:
    30); `settle_s`: how long a file must stay as it is (0: 5).
    """
    watch = watches_pb2.Watch(
        name=name,
        uri=uri,
        model=model,
        patterns=patterns,
        profile=profile,
        every_s=every_s,
        settle_s=settle_s,
    )
    request = watches_pb2.SetWatchRequest(watch=watch)
    return Call("watches", "SetWatch", request, CHANGE_TIMEOUT_S, lambda reply: _watch(reply.watch))


def watches() -> Call[tuple[Watch, ...]]:
    """All watches, by name."""
    return Call(
        "watches",
        "ListWatches",
        watches_pb2.ListWatchesRequest(),
        READ_TIMEOUT_S,
        lambda reply: tuple(_watch(one) for one in reply.watches),
    )


def delete_watch(name: str) -> Call[None]:
    """Removes a watch; versions that it registered stay."""
    request = watches_pb2.DeleteWatchRequest(name=name)
    return Call("watches", "DeleteWatch", request, CHANGE_TIMEOUT_S, lambda reply: None)


def _watch(message: watches_pb2.Watch) -> Watch:
    return Watch(
        message.name,
        message.uri,
        message.model,
        tuple(message.patterns),
        message.profile,
        message.every_s,
        message.settle_s,
        message.known_files,
        message.by,
        message.error,
    )
