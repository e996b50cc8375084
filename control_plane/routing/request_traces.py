"""What became of the newest requests, to be looked up by their ids; bounded, in memory."""

from collections import deque
from dataclasses import dataclass

from control_plane.types.version import VersionKey
from yolopool.errors import RequestNotFound

MAX_TRACES = 10_000


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request that ended; `outcome` is OK or an error's reason. Times are milliseconds."""

    request_id: str
    unix_s: float  # when it came
    principal: str
    model: str  # as it was asked for
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
    """The newest `most`; adding one and finding those of an id take the same time at any size."""

    def __init__(self, most: int = MAX_TRACES) -> None:
        self._most = most
        self._kept: deque[RequestTrace] = deque()
        self._by_id: dict[str, deque[RequestTrace]] = {}

    def add(self, trace: RequestTrace) -> None:
        """Keeps a request that ended; one without an id can't be asked for, and is not kept."""
        if not trace.request_id:
            return
        self._kept.append(trace)
        self._by_id.setdefault(trace.request_id, deque()).append(trace)
        if len(self._kept) > self._most:
            oldest = self._kept.popleft()
            same = self._by_id[oldest.request_id]
            same.popleft()
            if not same:
                del self._by_id[oldest.request_id]

    def find(self, request_id: str) -> tuple[RequestTrace, ...]:
        """Those of an id, newest first. Raises RequestNotFound."""
        found = self._by_id.get(request_id)
        if not found:
            raise RequestNotFound(
                f"request {request_id[:128]!r} is not among the newest {self._most} that this "
                "control plane ended: ask the one that answered it, or look in its log"
            )
        return tuple(reversed(found))
