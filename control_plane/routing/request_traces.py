"""The outcomes of the newest requests, by request id: bounded, in memory."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from control_plane.types.version import VersionKey
from yolopool.errors import RequestNotFound

MAX_TRACES = 10_000


class RequestTrace(NamedTuple):
    """A request that ended; `outcome`: OK or an error's reason."""

    request_id: str
    unix_s: float  # when it arrived
    principal: str
    model: str  # as the caller named it
    version: VersionKey | None
    outcome: str
    message: str
    retried: tuple[str, ...]
    worker: str
    hit: bool
    total_ms: float
    load_wait_ms: float
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    batch_size: int = 0


class RequestHistory:
    """The newest `max_traces`; `add` and `find` take the same time at any size."""

    def __init__(self, max_traces: int = MAX_TRACES) -> None:
        self._max_traces = max_traces
        self._kept: deque[RequestTrace] = deque()
        self._by_id: dict[str, deque[RequestTrace]] = {}

    def add(self, trace: RequestTrace) -> None:
        """Keeps a request that ended, unless it has no id to find it by."""
        if not trace.request_id:
            return
        self._kept.append(trace)
        self._by_id.setdefault(trace.request_id, deque()).append(trace)
        if len(self._kept) > self._max_traces:
            oldest = self._kept.popleft()
            same = self._by_id[oldest.request_id]
            same.popleft()
            if not same:
                del self._by_id[oldest.request_id]

    def find(
        self, request_id: str, is_shown: Callable[[RequestTrace], bool] = lambda _: True
    ) -> tuple[RequestTrace, ...]:
        """The requests with this id that may be shown, newest first. Raises RequestNotFound."""
        found = [trace for trace in self._by_id.get(request_id, ()) if is_shown(trace)]
        if not found:
            raise RequestNotFound(
                f"request {request_id[:128]!r} is not among the newest {self._max_traces} of this "
                "control plane: ask the one that answered it, or search its log"
            )
        return tuple(reversed(found))
