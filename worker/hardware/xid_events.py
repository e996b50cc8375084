"""Xid errors, by which an NVIDIA driver tells that a GPU, or a program on it, failed."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml
import structlog

log = structlog.get_logger()

# Events of one look at most.
MAX_EVENTS = 100
_ANY_SLICE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Xids:
    """How many errors came since someone looks, and the number of the last; 0: none came."""

    total: int = 0
    last: int = 0


class XidEvents:
    """Of one GPU, or of a slice: errors of other slices are not its own. `look` calls the driver,
    which may take its time.
    """

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        # The driver keeps events for who registered; None: not yet, or it does not tell.
        self._events: Any = None
        self._slice: int | None = None
        self._is_untold = False
        self._seen = Xids()

    def look(self) -> Xids | None:
        """All so far; None: the driver does not tell."""
        if self._events is None and not self._is_untold:
            self._register()
        if self._events is None:
            return None
        for _ in range(MAX_EVENTS):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError:  # there is none
                break
            if self._is_own(event):
                self._seen = Xids(self._seen.total + 1, int(event.eventData))
                log.error("the driver reports an error of the GPU", xid=self._seen.last)
        return self._seen

    def _register(self) -> None:
        """Initialises NVML until the process ends: with the last user its events would go."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return  # there may be a driver at the next look
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            if self._uuid.startswith("MIG-"):
                self._slice = pynvml.nvmlDeviceGetGpuInstanceId(handle)
                handle = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            events = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
            self._events = events
        except pynvml.NVMLError:
            self._is_untold = True
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _is_own(self, event: Any) -> bool:
        return self._slice is None or event.gpuInstanceId in (self._slice, _ANY_SLICE)
