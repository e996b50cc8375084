"""The load generator on a virtual clock: a fake call costs virtual seconds, no test waits."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import loadgen
from benchmarks.harness.loadgen import Load, Outcome, Window
from benchmarks.harness.measure import Measured, joined
from yolopool.errors import QueueFull


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose waits cost nothing: each jumps its clock to the next timer."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        selector = selectors.SelectSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            if timeout is None:
                raise AssertionError("nothing is left to wait for: the load hangs")
            self._virtual_s += max(0.0, timeout)
            return select(0)

        selector.select = jump  # type: ignore[method-assign]  # the loop's only wait
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual_s


def play(load: Callable[[], Coroutine[Any, Any, Load]]) -> Load:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(load())


def server(cost_s: float, slots: int = 1) -> loadgen.Call:
    """Serves `slots` requests at a time, `cost_s` each."""
    free = asyncio.Semaphore(slots)

    async def call(number: int) -> Mapping[str, float]:
        async with free:
            await asyncio.sleep(cost_s)
        return {"inference_ms": cost_s * 1e3}

    return call


def test_a_closed_loop_measures_throughput_and_latency_without_the_warm_up() -> None:
    async def run() -> Load:
        return await loadgen.closed_loop(server(0.1), clients=4, warmup_s=2.0, duration_s=10.0)

    load = play(run)
    assert load.throughput == pytest.approx(10.0, rel=0.02)
    assert load.latency_ms().p50 == pytest.approx(400, rel=0.01)
    assert load.late_ms().maximum == 0
    assert load.stage_medians_ms() == {"inference_ms": pytest.approx(100)}
    assert load.errors == {}
    assert min(one.intended_s for one in load.measured()) >= 2.0
    assert len(load.outcomes) > len(load.measured())


def test_an_open_loop_below_capacity_sees_the_cost() -> None:
    async def run() -> Load:
        arrivals = loadgen.constant_arrivals(5.0, 12.0)
        return await loadgen.open_loop(server(0.1), arrivals, warmup_s=2.0, duration_s=10.0)

    load = play(run)
    assert len(load.measured()) == 50
    assert load.latency_ms().maximum == pytest.approx(100, rel=0.01)
    assert load.throughput == pytest.approx(5.0, rel=0.05)


def test_a_stall_counts_for_every_request_that_was_due_in_it() -> None:
    """Coordinated omission: a closed loop sees one slow request, an open one those behind it."""

    async def stalling(number: int) -> Mapping[str, float]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.01, 5.0 - loop.time()) if loop.time() >= 3.0 else 0.01)
        return {}

    async def opened() -> Load:
        arrivals = loadgen.constant_arrivals(10.0, 10.0)
        return await loadgen.open_loop(stalling, arrivals, warmup_s=0.0, duration_s=10.0)

    async def closed() -> Load:
        return await loadgen.closed_loop(stalling, clients=1, warmup_s=0.0, duration_s=10.0)

    slow = [one for one in play(opened).measured() if one.latency_s > 0.5]
    assert len(slow) == pytest.approx(15, abs=1)  # due between 3.0 and 4.5 s
    assert len([one for one in play(closed).measured() if one.latency_s > 0.5]) == 1


def test_a_late_generator_lengthens_latencies() -> None:
    async def run() -> Load:
        async def call(number: int) -> Mapping[str, float]:
            await asyncio.sleep(0.1)
            return {}

        # All were due before the load could begin to send.
        await asyncio.sleep(0)
        return await loadgen.open_loop(call, (-1.0, -0.5), warmup_s=-2.0, duration_s=3.0)

    load = play(run)
    assert load.latency_ms().maximum == pytest.approx(1100)
    assert load.late_ms().maximum == pytest.approx(1000)


def test_failures_are_outcomes_by_reason_and_no_latencies() -> None:
    async def call(number: int) -> Mapping[str, float]:
        await asyncio.sleep(0.05)
        if number % 4 == 1:
            raise QueueFull("full: retry")
        if number % 4 == 3:
            raise OSError("gone")
        return {}

    async def run() -> Load:
        arrivals = loadgen.constant_arrivals(8.0, 1.0)
        return await loadgen.open_loop(call, arrivals, warmup_s=0.0, duration_s=2.0)

    load = play(run)
    assert load.errors == {"QUEUE_FULL": 2, "OSError": 2}
    assert load.finished == 8
    assert load.latency_ms().count == 4
    assert load.throughput == 2.0


def test_an_immediate_refusal_is_no_busy_loop() -> None:
    async def call(number: int) -> Mapping[str, float]:
        raise QueueFull("full: retry")

    async def run() -> Load:
        return await loadgen.closed_loop(call, clients=2, warmup_s=0.0, duration_s=1.0)

    load = play(run)
    assert load.throughput == 0
    assert load.errors["QUEUE_FULL"] <= 2 * 101
    with pytest.raises(ValueError, match="no request"):
        load.latency_ms()


def test_the_edges_of_the_window_are_told() -> None:
    edges: list[float] = []

    async def run() -> Load:
        loop = asyncio.get_running_loop()
        return await loadgen.closed_loop(
            server(0.1), 1, warmup_s=2.0, duration_s=3.0, edge=lambda: edges.append(loop.time())
        )

    play(run)
    assert edges == pytest.approx([2.0, 5.0], abs=0.01)


def test_runs_that_are_joined_count_what_was_answered_in_their_windows() -> None:
    def run(*outcomes: Outcome, cpu_s: float) -> Measured:
        return Measured(Load(outcomes, Window(1.0, 3.0), 0.1), {"worker": cpu_s})

    whole = joined(
        [
            run(
                Outcome(0.5, 0.5, 1.5, "", {}),  # sent before
                Outcome(1.5, 1.5, 2.0, "", {}),
                Outcome(2.5, 2.5, 3.5, "", {}),  # answered behind
                Outcome(0.1, 0.1, 0.2, "QUEUE_FULL", {}),
                cpu_s=0.1,
            ),
            run(Outcome(1.0, 1.0, 2.0, "", {}), cpu_s=0.4),
        ]
    )
    assert whole.load.window == Window(0.0, 4.0)
    assert (whole.load.finished, whole.load.throughput) == (3, 3 / 4)
    assert whole.load.errors == {"QUEUE_FULL": 1}
    assert sorted(one.latency_s for one in whole.load.measured()) == [0.5, 1.0]
    assert whole.load.generator_cpu_s == pytest.approx(0.2)
    assert whole.cpu_s_per_request["worker"] == pytest.approx((2 * 0.1 + 0.4) / 3)


@given(st.floats(0.5, 50), st.floats(1, 20), st.integers(0, 100))
def test_poisson_arrivals_ascend_and_repeat(rate: float, duration_s: float, seed: int) -> None:
    times = loadgen.poisson_arrivals(rate, duration_s, seed)
    assert times == loadgen.poisson_arrivals(rate, duration_s, seed)
    assert list(times) == sorted(times)
    assert all(0 <= moment < duration_s for moment in times)


def test_poisson_arrivals_have_their_rate() -> None:
    assert len(loadgen.poisson_arrivals(100.0, 100.0, seed=1)) == pytest.approx(10_000, rel=0.05)


def test_zipf_prefers_the_first_and_zero_is_uniform() -> None:
    picks = loadgen.zipf_choices(10_000, items=4, exponent=1.0, seed=1)
    shares = [picks.count(index) / len(picks) for index in range(4)]
    assert shares == pytest.approx([0.48, 0.24, 0.16, 0.12], abs=0.02)
    flat = loadgen.zipf_choices(10_000, items=4, exponent=0.0, seed=1)
    assert [flat.count(index) / len(flat) for index in range(4)] == pytest.approx(
        [0.25] * 4, abs=0.02
    )
