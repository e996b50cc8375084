"""What a failed pass means: the device is of no use, or several images are run again one by one, or
a single one gets the error.

A graph may fail, or answer for another number of images, whenever several come together. Guarded
by the engine's lock.
"""

from collections.abc import Sequence

import structlog

from worker.batching.queue import Batch, Ticket
from worker.engine.batch_limits import BatchLimits
from worker.engine.device_health import DeviceHealth
from worker.engine.runner import TicketWork
from yolopool.errors import DeviceFailed, YolopoolError

log = structlog.get_logger()


class OneByOne:
    """Sets the limits by which images run alone, and lifts them."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._health = DeviceHealth()

    def failed(
        self,
        version: str,
        tickets: Sequence[Ticket[TicketWork]],
        images: int,
        error: YolopoolError,
        now: float,
    ) -> tuple[str, bool]:
        """A pass of these tickets and so many images failed. Returns why the device is of no use,
        if it is; and whether the images are to run again, alone.
        """
        lost = error.message if isinstance(error, DeviceFailed) else ""
        lost = lost or self._health.failed(version, error)
        if lost:
            return lost, False
        numbers = [ticket.number for ticket in tickets]
        if images == 1:
            if self._limits.failed_alone(version, numbers):
                log.warning("an image fails alone too, others may run together", version=version)
            return "", False
        if self._limits.failed_together(version, now, numbers):
            log.warning(
                "a pass failed: images of this version run one by one for a while, unless one of "
                "them fails alone",
                version=version,
                images=images,
                why=error.message,
            )
        for ticket in tickets:
            if ticket.payload.reply.future.done():  # its caller left before
                self._limits.left(ticket.number)
        return "", True

    def ended(self, batch: Batch[TicketWork], now: float) -> None:
        """A pass was well."""
        self._health.well(batch.version)
        if batch.images == 1:
            self._limits.ran_alone(batch.version, batch.tickets[0].number)
        else:
            self._limits.ran_together(batch.version, now)

    def forget(self, version: str) -> None:
        """A version left."""
        self._limits.forget(version)
        self._health.forget(version)
