"""An alias that is switched under load: the callers, the orders, and whether each answer was of a
version that was live while it was made.

All times are seconds of this machine's wall clock, which the pool's history of the alias has too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from yolopool.client.async_client import AsyncClient
from yolopool.client.rollout.alias_records import Alias
from yolopool.errors import YolopoolError

WINDOW_S = 10.0
# Between the starts of two windows that are looked at.
STEP_S = 1.0
# The pool's clock and this one are read at different moments.
CLOCK_S = 0.001


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it was sent and answered, and by which version; or why it failed."""

    sent_s: float
    answered_s: float
    version: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """One order: when it was sent and returned, what it moved to, and when the pool's history says
    that the alias moved.
    """

    kind: str
    version: int
    ordered_s: float
    returned_s: float
    moved_s: float

    @property
    def took_s(self) -> float:
        return self.returned_s - self.ordered_s


@dataclass(frozen=True, slots=True)
class Life:
    """When a version was what the alias meant: from the record of its move to the moment when the
    order of the next one had returned.
    """

    version: int
    begin_s: float
    end_s: float
    next_s: float  # the record of the next move: this one ended there, or in moments after it


def lives(first: int, moves: Sequence[Move]) -> list[Life]:
    """The timeline; `first`: what the alias meant before the first of the moves."""
    versions = [first, *(move.version for move in moves)]
    begins = [float("-inf"), *(move.moved_s for move in moves)]
    nexts = [*(move.moved_s for move in moves), float("inf")]
    ends = [*(move.returned_s for move in moves), float("inf")]
    return [Life(*one) for one in zip(versions, begins, ends, nexts, strict=True)]


def out_of_time(answers: Sequence[Answer], timeline: Sequence[Life]) -> list[Answer]:
    """The answers of versions that were not live at any moment of their request."""
    return [
        answer
        for answer in answers
        if not answer.reason
        and not any(
            life.version == answer.version
            and life.begin_s - CLOCK_S <= answer.answered_s
            and answer.sent_s <= life.end_s + CLOCK_S
            for life in timeline
        )
    ]


def latest_s(answers: Sequence[Answer], timeline: Sequence[Life]) -> float:
    """How long after the record of a move a request was sent that the version before answered."""
    late = 0.0
    for answer in answers:
        ends = [
            answer.sent_s - life.next_s
            for life in timeline
            if life.version == answer.version and life.begin_s <= answer.answered_s
        ]
        late = max(late, min(ends, default=0.0))
    return late


def windows(answers: Sequence[Answer], begin_s: float, end_s: float) -> list[float]:
    """Answers a second in each window of WINDOW_S between the two moments."""
    done = sorted(answer.answered_s for answer in answers if not answer.reason)
    rates, at = [], begin_s
    while at + WINDOW_S <= end_s:
        rates.append(sum(at <= one < at + WINDOW_S for one in done) / WINDOW_S)
        at += STEP_S
    return rates


class Callers:
    """`async with Callers(...) as callers`: so many, each asks again as soon as it is answered."""

    def __init__(
        self, clients: Sequence[AsyncClient], image: bytes, model: str, count: int
    ) -> None:
        self.answers: list[Answer] = []
        self._clients = clients
        self._image = image
        self._model = model
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def __aenter__(self) -> "Callers":
        for number in range(self._count):
            client = self._clients[number % len(self._clients)]
            self._tasks.append(asyncio.create_task(self._ask(client)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def _ask(self, client: AsyncClient) -> None:
        while not self._ending:
            sent_s, version, reason = time.time(), 0, ""
            try:
                found = await client.detect(self._image, self._model)
                version = int(found.model.rpartition("@")[2])
            except YolopoolError as error:
                reason = error.reason
                await asyncio.sleep(0.01)
            self.answers.append(Answer(sent_s, time.time(), version, reason))


async def moved(kind: str, order: Callable[[], Awaitable[Alias]]) -> Move:
    """Gives one order, and waits until it is carried out."""
    ordered_s = time.time()
    alias = await order()
    returned_s = time.time()
    return Move(kind, alias.version, ordered_s, returned_s, alias.history[-1].unix_s)
