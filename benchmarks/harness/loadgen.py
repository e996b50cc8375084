"""Load: closed loop (N clients, each waits for its answer) and open loop (arrivals by the clock).

In the open loop a latency counts from the *intended* start. A generator that waits for a slow
answer, or is late itself, must not shorten the wait that a user would have had ("coordinated
omission": Gil Tene, "How NOT to Measure Latency", and his wrk2). A closed loop slows down with
the server: read its throughput, and its latency only as that of so many clients.
Time is the event loop's, so that tests run on a virtual one.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.statistics import Summary, median, summarize
from yolopool.errors import YolopoolError

# One request by its number; answers the stages it took in ms (may be empty), raises on failure.
Call = Callable[[int], Awaitable[Mapping[str, float]]]
# A refusal may come at once: without a pause a client would turn it into a busy loop.
REFUSED_PAUSE_S = 0.01
# Called at the two edges of the measured window, to read other clocks (CPU of processes).
Edge = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request; times in seconds since the load began, warm-up included."""

    intended_s: float
    started_s: float
    finished_s: float
    reason: str  # empty: answered
    stages_ms: Mapping[str, float]

    @property
    def latency_s(self) -> float:
        return self.finished_s - self.intended_s

    @property
    def late_s(self) -> float:
        """How long after its intended start the generator sent it: the generator's own fault."""
        return self.started_s - self.intended_s

    def moved(self, seconds: float) -> "Outcome":
        """The same, so much later."""
        times = (self.intended_s + seconds, self.started_s + seconds, self.finished_s + seconds)
        return Outcome(*times, self.reason, self.stages_ms)


@dataclass(frozen=True, slots=True)
class Window:
    """What is measured: [begin_s, end_s), after the warm-up."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.begin_s

    def __contains__(self, moment_s: float) -> bool:
        return self.begin_s <= moment_s < self.end_s


@dataclass(frozen=True, slots=True)
class Load:
    """A finished load. Latencies are of requests meant to start in the window, throughput is of
    those that finished in it, so that neither end of the window flatters. It began at `began_s`
    of the event loop's clock.
    """

    outcomes: tuple[Outcome, ...]
    window: Window
    generator_cpu_s: float
    began_s: float = 0.0

    def measured(self) -> tuple[Outcome, ...]:
        """The requests meant to start in the window."""
        return tuple(one for one in self.outcomes if one.intended_s in self.window)

    @property
    def finished(self) -> int:
        """Requests that ended in the window, answered or failed: what CPU was spent on."""
        return sum(one.finished_s in self.window for one in self.outcomes)

    @property
    def throughput(self) -> float:
        """Answered requests a second."""
        answered = sum(not one.reason and one.finished_s in self.window for one in self.outcomes)
        return answered / self.window.length_s

    @property
    def errors(self) -> dict[str, int]:
        """How many failed, by reason, most first. Warm-up included: an error never hides there."""
        return dict(Counter(one.reason for one in self.outcomes if one.reason).most_common())

    @property
    def generator_cores(self) -> float:
        """Cores this process used; near 1.0 the generator and not the pool was measured."""
        return self.generator_cpu_s / self.window.length_s

    def latency_ms(self) -> Summary:
        """Of the answered requests; ValueError if there was none."""
        return summarize([one.latency_s * 1e3 for one in self.measured() if not one.reason])

    def late_ms(self) -> Summary:
        """Of all requests; in a closed loop zero but for microseconds."""
        return summarize([one.late_s * 1e3 for one in self.measured()])

    def stage_medians_ms(self) -> dict[str, float]:
        """Median of each stage over the answered requests that named it."""
        names = dict.fromkeys(name for one in self.measured() for name in one.stages_ms)
        return {
            name: median([s.stages_ms[name] for s in self.measured() if name in s.stages_ms])
            for name in names
        }


def poisson_arrivals(rate: float, duration_s: float, seed: int) -> tuple[float, ...]:
    """Times (s) in [0, duration_s) with exponential gaps: independent users. Same seed, same."""
    rng = random.Random(seed)
    times: list[float] = []
    moment = rng.expovariate(rate)
    while moment < duration_s:
        times.append(moment)
        moment += rng.expovariate(rate)
    return tuple(times)


def constant_arrivals(rate: float, duration_s: float) -> tuple[float, ...]:
    """Times (s) in [0, duration_s), evenly spaced: cameras."""
    return tuple(index / rate for index in range(int(duration_s * rate)))


def zipf_choices(count: int, items: int, exponent: float, seed: int) -> tuple[int, ...]:
    """`count` indexes below `items`; index k has weight 1 / (k + 1) ** exponent, 0 is uniform."""
    weights = [(rank + 1) ** -exponent for rank in range(items)]
    return tuple(random.Random(seed).choices(range(items), weights, k=count))


async def closed_loop(
    call: Call,
    clients: int,
    warmup_s: float,
    duration_s: float,
    edge: Edge | None = None,
) -> Load:
    """Keeps `clients` requests in flight for warmup_s + duration_s, then waits for the last."""
    window = Window(warmup_s, warmup_s + duration_s)
    recorder = _Recorder(call)

    async def client() -> None:
        while recorder.now() < window.end_s:
            if not await recorder.record(recorder.now()):
                await asyncio.sleep(REFUSED_PAUSE_S)

    return await _measure(recorder, window, edge, [client() for _ in range(clients)])


async def open_loop(
    call: Call,
    arrivals: Sequence[float],
    warmup_s: float,
    duration_s: float,
    edge: Edge | None = None,
) -> Load:
    """Sends a request at each time of `arrivals` (s since the start, ascending), whatever the
    state of those before; then waits for the last. `call` should have a deadline."""
    window = Window(warmup_s, warmup_s + duration_s)
    recorder = _Recorder(call)

    async def send() -> None:
        async with asyncio.TaskGroup() as group:
            for intended_s in arrivals:
                # An overdue request goes out at once; its lateness is part of its latency.
                await asyncio.sleep(max(0.0, intended_s - recorder.now()))
                group.create_task(recorder.record(intended_s))

    return await _measure(recorder, window, edge, [send()])


class _Recorder:
    """Numbers, times and keeps the requests of one load."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self.began_s = self._loop.time()
        self._sent = 0
        self.outcomes: list[Outcome] = []

    def now(self) -> float:
        return self._loop.time() - self.began_s

    async def record(self, intended_s: float) -> bool:
        """Makes one request and keeps its outcome; answers whether it was answered."""
        number, self._sent = self._sent, self._sent + 1
        started_s, reason = self.now(), ""
        stages_ms: Mapping[str, float] = {}
        try:
            stages_ms = await self._call(number)
        except YolopoolError as error:
            reason = error.reason
        except Exception as error:  # any failure is an outcome; the load goes on
            reason = type(error).__name__
        self.outcomes.append(Outcome(intended_s, started_s, self.now(), reason, stages_ms))
        return not reason


async def _measure(
    recorder: _Recorder, window: Window, edge: Edge | None, senders: Sequence[Awaitable[None]]
) -> Load:
    cpu_s: list[float] = []

    async def watch() -> None:
        for moment_s in (window.begin_s, window.end_s):
            await asyncio.sleep(max(0.0, moment_s - recorder.now()))
            cpu_s.append(time.process_time())
            if edge is not None:
                edge()

    await asyncio.gather(watch(), *senders)
    return Load(tuple(recorder.outcomes), window, cpu_s[1] - cpu_s[0], recorder.began_s)
