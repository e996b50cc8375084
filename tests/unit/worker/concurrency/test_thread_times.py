"""What threads did, as the kernel counts it: they ran, or waited on a host that starves them."""

import threading
import time
from pathlib import Path

import pytest

from worker.concurrency.thread_times import Spent, ThreadClock, ThreadTime, Times, spent

ONE, TWO, LOOP = 1, 2, 3


def at(**threads: tuple[float, float]) -> Times:
    numbers = {"one": ONE, "two": TWO, "loop": LOOP}
    return {numbers[name]: ThreadTime(*times) for name, times in threads.items()}


BEFORE = at(one=(5.0, 1.0), two=(3.0, 1.0), loop=(1.0, 1.0))


@pytest.mark.parametrize(
    ("now", "ran_s", "waited_s"),
    [
        pytest.param(BEFORE, 0.0, 0.0, id="all sleep: what they wait for does not come"),
        pytest.param(
            at(one=(6.0, 1.0), two=(3.0, 1.0), loop=(1.0, 1.0)), 1.0, 0.0, id="it runs all the time"
        ),
        pytest.param(
            at(one=(5.1, 1.9), two=(3.0, 1.0), loop=(1.0, 1.0)), 0.1, 0.9, id="it is starved"
        ),
        pytest.param(
            at(one=(5.05, 1.0), two=(3.1, 1.85), loop=(1.0, 1.0)),
            0.1,
            0.85,
            id="it sleeps until another thread of the pass gets a processor",
        ),
        pytest.param(
            at(one=(5.01, 1.0), two=(3.0, 1.0), loop=(1.1, 1.8)),
            0.01,
            0.8,
            id="it wakes for a lock, whose holder gets no processor",
        ),
        pytest.param(
            at(one=(5.0, 1.0), two=(3.0, 1.0), loop=(1.1, 1.9)),
            0.0,
            0.0,
            id="it sleeps for good, though others are starved",
        ),
        pytest.param(
            {**BEFORE, ONE: ThreadTime(5.0, 1.0, runnable=True)}, 0.0, 1.0, id="it waits still"
        ),
        pytest.param(
            at(one=(5.1, 4.0), two=(3.0, 1.0), loop=(1.0, 1.0)), 0.1, 3.0, id="a wait has ended"
        ),
        pytest.param(
            {**BEFORE, 9: ThreadTime(0.2, 7.0)}, 0.0, 0.0, id="a thread that began is no wait"
        ),
        pytest.param(at(loop=(1.0, 1.0)), 0.0, 0.0, id="the threads have ended"),
    ],
)
def test_what_threads_did_in_a_second(now: Times, ran_s: float, waited_s: float) -> None:
    found = spent(BEFORE, now, (ONE, TWO), 1.0)
    assert (found.ran_s, found.waited_s) == pytest.approx((ran_s, waited_s))


def test_the_kernel_tells_a_thread_that_sleeps_from_one_that_runs() -> None:
    end = threading.Event()
    asleep = threading.Thread(target=end.wait, daemon=True)
    asleep.start()
    clock = ThreadClock()
    assert clock.look()(lambda thread: True, 7.0) == Spent(0.0, 0.0), "there is no look before"
    began, turns = time.thread_time(), 0
    while time.thread_time() - began < 0.02:
        turns += 1
    of = clock.look()
    assert of(lambda thread: thread == asleep.native_id, 100.0).ran_s < 0.01
    assert of(lambda thread: thread == threading.get_native_id(), 100.0).ran_s >= 0.02
    end.set()
    asleep.join()


def test_where_the_kernel_says_nothing_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "self" / "task" / "12").mkdir(parents=True)
    for clock in (ThreadClock(proc=tmp_path), ThreadClock(4194305)):
        clock.look()
        assert clock.look()(lambda thread: True, 3.0) == Spent(0.0, 0.0)
