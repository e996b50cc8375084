"""Passes of batches over the device: staged and run on the device thread, finished beside it.

The device thread goes on to the next batch while one other thread suppresses and replies, in
order. A failure in any stage is the answer to its tickets, and ends neither thread.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import structlog

from worker.backends.base import U8, LoadedModel, RunningPass
from worker.batching.queue import Batch, Ticket
from worker.concurrency.reply import Reply, deliver
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import InferenceFailed, OutOfMemory, YolopoolError

log = structlog.get_logger()
# Of images that fill a pass up, as of a letterbox's margin.
GREY = 114


@dataclass(frozen=True, slots=True)
class TicketWork:
    """What a ticket brings to its pass."""

    image: U8
    options: NmsOptions
    reply: "Reply[Outcome]"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answer to one ticket, with its stages in seconds."""

    candidates: Candidates
    queue_s: float
    transfer_s: float
    inference_s: float
    postprocess_s: float
    batch_size: int


class PassObserver(Protocol):
    """What whoever gives the batches is told, on either thread."""

    def began(self, batch: Batch[TicketWork]) -> None:
        """A pass left the device thread and is to be finished."""
        ...

    def ended(
        self, batch: Batch[TicketWork], tickets: int, images: int, pass_s: float | None
    ) -> None:
        """A pass that began is done; it took as long as its slowest stage. None: it failed."""
        ...

    def failed(self, tickets: int) -> None:
        """So many tickets were answered by an error; their pass did not begin."""
        ...

    def too_large(self, batch: Batch[TicketWork], images: int) -> None:
        """So many images did not fit the device."""
        ...

    def wait_alone(self) -> None:
        """On the device thread: returns when no pass is left to be finished."""
        ...


class BatchRunner:
    """`run` is of the device thread; `beside` runs the rest of a pass on another."""

    def __init__(
        self,
        account: PassObserver,
        beside: Callable[[Callable[[], None]], None],
        clock: Callable[[], float],
    ) -> None:
        self._account = account
        self._beside = beside
        self._clock = clock

    def run(self, model: LoadedModel, batch: Batch[TicketWork]) -> None:
        """Returns when the device may be given the next batch."""
        self._run(model, batch, batch.tickets, batch.images - len(batch.tickets))

    def _run(
        self,
        model: LoadedModel,
        batch: Batch[TicketWork],
        tickets: Sequence[Ticket[TicketWork]],
        filler: int = 0,
        last: bool = False,
    ) -> None:
        """One pass, filled up with so many grey images; out of memory, two of half the size, down
        to one image, which has another chance: the backend freed what it only cached.
        """
        began = self._clock()
        size = len(tickets) + filler
        work = [ticket.payload for ticket in tickets]
        try:
            grey = [np.full_like(work[0].image, GREY)] * filler
            raw = model.stage(
                [*(one.image for one in work), *grey],
                [*(one.options for one in work), *([work[0].options] * filler)],
            ).forward()
        except OutOfMemory as error:
            if size == 1 and last:
                self._fail(batch, tickets, error)
                return
        except Exception as error:
            self._fail(batch, tickets, error)
            return
        else:
            self._account.began(batch)
            busy_s = self._clock() - began
            self._beside(partial(self._finish, batch, tickets, size, raw, began, busy_s))
            return
        # Out of the handlers, whose traceback held the tensors of the pass; and what passes before
        # this one still hold on the device is to be free.
        self._account.wait_alone()
        if size == 1:
            self._run(model, batch, tickets, last=True)
            return
        log.warning("batch out of memory", version=batch.version, images=size)
        self._account.too_large(batch, size)
        half = size // 2
        for part in filter(None, (tickets[:half], tickets[half:])):
            self._account.wait_alone()
            self._run(model, batch, part)

    def _fail(
        self, batch: Batch[TicketWork], tickets: Sequence[Ticket[TicketWork]], error: Exception
    ) -> None:
        self._account.failed(len(tickets))
        told = _told(error, batch.version)
        deliver((ticket.payload.reply, None, told) for ticket in tickets)

    def _finish(
        self,
        batch: Batch[TicketWork],
        tickets: Sequence[Ticket[TicketWork]],
        size: int,
        raw: RunningPass,
        began: float,
        busy_s: float,
    ) -> None:
        pass_s: float | None = None
        error: YolopoolError | None = None
        try:
            result = raw.finish()
            if len(result.candidates) != size:
                raise InferenceFailed(f"{len(result.candidates)} answers to {size} images")
            stages = (result.transfer_s, result.inference_s, result.postprocess_s)
            pass_s = max(busy_s, *stages)
        except Exception as failure:
            error = _told(failure, batch.version)
        # What was given to the device is done with, whoever still waits for an answer of it.
        self._account.ended(batch, len(tickets), size, pass_s)
        if error is not None:
            deliver((ticket.payload.reply, None, error) for ticket in tickets)
            return
        answers = zip(tickets, result.candidates, strict=False)
        deliver(
            (
                ticket.payload.reply,
                Outcome(
                    candidates,
                    began - ticket.arrived,
                    result.transfer_s,
                    result.inference_s,
                    result.postprocess_s,
                    len(tickets),
                ),
                None,
            )
            for ticket, candidates in answers
        )


def _told(error: Exception, version: str) -> YolopoolError:
    """What the caller hears: our errors as they are, others by an id in the log."""
    if isinstance(error, YolopoolError):
        return error
    incident = uuid.uuid4().hex[:12]
    log.error("pass failed", version=version, incident=incident, exc_info=error)
    return InferenceFailed(f"{version} failed on this image: see {incident} in the worker's log")
