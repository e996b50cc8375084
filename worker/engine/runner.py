"""Runs batches: a pass is staged and run on the device thread, and finished on another.

The device thread goes on to the next batch while the finish thread runs NMS and replies, in order.
A failure in any stage is reported with the tickets of the batch, and ends neither thread.
"""

import itertools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import structlog

from worker.arrays import U8
from worker.backends.base import LoadedModel, RunningPass
from worker.batching.queue import Batch, Ticket
from worker.concurrency.reply import Reply, deliver
from worker.engine.device_health import sticky_words
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import DeviceFailed, InferenceFailed, OutOfMemory, YolopoolError

log = structlog.get_logger()
# The colour of images that fill up a pass: that of a letterbox's margin.
GREY = 114


@dataclass(frozen=True, slots=True)
class TicketWork:
    """The payload of a ticket: what its pass needs. `waiting`: tickets before it, when it came."""

    image: U8
    options: NmsOptions
    reply: "Reply[Outcome]"
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one ticket, with the times of its stages.

    `batch`: the number of its pass. `retries`: how often that ran out of memory before. `waiting`:
    see TicketWork. `is_cold`: nothing like the pass was run before.
    """

    candidates: Candidates
    queue_s: float
    transfer_s: float
    inference_s: float
    postprocess_s: float
    batch_size: int
    batch: int = 0
    retries: int = 0
    waiting: int = 0
    is_cold: bool = False


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass: its number, its tickets, the grey images that fill it up, and how often it ran out
    of memory before.
    """

    number: int
    tickets: Sequence[Ticket[TicketWork]]
    filler: int
    retries: int
    is_cold: bool

    @property
    def size(self) -> int:
        return len(self.tickets) + self.filler


class PassObserver(Protocol):
    """Hears how batches go; called on either thread."""

    def began(self, batch: Batch[TicketWork]) -> None:
        """A pass left the device thread and is to be finished."""
        ...

    def ended(
        self, batch: Batch[TicketWork], tickets: int, images: int, pass_s: float | None
    ) -> None:
        """A pass that began is done; `pass_s` is the time of its slowest stage, None: it failed."""
        ...

    def failed(self, tickets: int) -> None:
        """`tickets` of a pass that did not begin got no answer from it."""
        ...

    def error(
        self,
        version: str,
        tickets: Sequence[Ticket[TicketWork]],
        images: int,
        error: YolopoolError,
    ) -> None:
        """A pass of so many images failed, once it was reported as ended or failed: its tickets
        are to be answered with the error, or run again.
        """
        ...

    def too_large(self, batch: Batch[TicketWork], images: int) -> None:
        """A pass of so many images did not fit the device."""
        ...

    def wait_alone(self) -> None:
        """On the device thread: waits until no pass is left to be finished."""
        ...


class BatchRunner:
    """`run` is called on the device thread; `finish_later` runs the rest of a pass on another."""

    def __init__(
        self,
        observer: PassObserver,
        finish_later: Callable[[Callable[[], None]], None],
        clock: Callable[[], float],
        first_number: int = 1,
    ) -> None:
        self._observer = observer
        self._finish_later = finish_later
        self._clock = clock
        self._numbers = itertools.count(first_number)

    def run(self, model: LoadedModel, batch: Batch[TicketWork], is_cold: bool = False) -> None:
        """Returns when the device can take the next batch."""
        filler = batch.images - len(batch.tickets)
        self._run(model, batch, self._pass(batch.tickets, filler, 0, is_cold))

    def _pass(
        self, tickets: Sequence[Ticket[TicketWork]], filler: int, retries: int, is_cold: bool
    ) -> _Pass:
        return _Pass(next(self._numbers), tickets, filler, retries, is_cold)

    def _run(
        self, model: LoadedModel, batch: Batch[TicketWork], now: _Pass, last: bool = False
    ) -> None:
        """Runs one pass. Out of memory, it is split into two of half the size, down to one image,
        which is retried once: the backend freed its cache.
        """
        began = self._clock()
        work = [ticket.payload for ticket in now.tickets]
        try:
            grey = [np.full_like(work[0].image, GREY)] * now.filler
            raw = model.stage(
                [*(item.image for item in work), *grey],
                [*(item.options for item in work), *([work[0].options] * now.filler)],
            ).forward()
        except OutOfMemory as error:
            if now.size == 1 and last:
                self._fail(batch, now, error)
                return
        except Exception as error:
            self._fail(batch, now, error)
            return
        else:
            self._observer.began(batch)
            busy_s = self._clock() - began
            self._finish_later(partial(self._finish, batch, now, raw, began, busy_s))
            return
        # Outside the handler, whose traceback held the tensors of the pass. Passes before this one
        # must free what they hold on the device first.
        self._observer.wait_alone()
        retries = now.retries + 1
        if now.size == 1:
            self._run(model, batch, self._pass(now.tickets, 0, retries, now.is_cold), last=True)
            return
        log.warning("batch out of memory", version=batch.version, images=now.size)
        self._observer.too_large(batch, now.size)
        half = now.size // 2
        for part in filter(None, (now.tickets[:half], now.tickets[half:])):
            self._observer.wait_alone()
            self._run(model, batch, self._pass(part, 0, retries, now.is_cold))

    def _fail(self, batch: Batch[TicketWork], now: _Pass, error: Exception) -> None:
        self._observer.failed(len(now.tickets))
        public = _public_error(error, batch.version)
        self._observer.error(batch.version, now.tickets, now.size, public)

    def _finish(
        self, batch: Batch[TicketWork], now: _Pass, raw: RunningPass, began: float, busy_s: float
    ) -> None:
        pass_s: float | None = None
        error: YolopoolError | None = None
        try:
            result = raw.finish()
            if len(result.candidates) != now.size:
                raise InferenceFailed(f"{len(result.candidates)} answers to {now.size} images")
            stages = (result.transfer_s, result.inference_s, result.postprocess_s)
            pass_s = max(busy_s, *stages)
        except Exception as failure:
            error = _public_error(failure, batch.version)
        # First: the device is done with the pass, whether or not its answers were delivered.
        self._observer.ended(batch, len(now.tickets), now.size, pass_s)
        if error is not None:
            self._observer.error(batch.version, now.tickets, now.size, error)
            return
        answers = zip(now.tickets, result.candidates, strict=False)
        deliver(
            (
                ticket.payload.reply,
                Outcome(
                    candidates,
                    began - ticket.arrived,
                    *stages,
                    len(now.tickets),
                    now.number,
                    now.retries,
                    ticket.payload.waiting,
                    now.is_cold,
                ),
                None,
            )
            if candidates.failure is None
            else (ticket.payload.reply, None, candidates.failure)
            for ticket, candidates in answers
        )


def _public_error(error: Exception, version: str) -> YolopoolError:
    """The error for the caller: ours as they are, others as an incident id in the log; that of a
    device which is of no use any more says so.
    """
    if sticky := sticky_words(error):
        log.error("the device failed", version=version, exc_info=error)
        return DeviceFailed(f"the device of this worker failed ({sticky}): ask another")
    if isinstance(error, YolopoolError):
        return error
    incident = uuid.uuid4().hex[:12]
    log.error("pass failed", version=version, incident=incident, exc_info=error)
    return InferenceFailed(f"{version} failed on this image: see {incident} in the worker's log")
