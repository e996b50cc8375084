"""Calls of the product's own Python, timed one by one: rows, checks and a curve of each."""

import argparse
import gc
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

from benchmarks.harness.results import Check, Row

NS_PER_US = 1000.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows of one measurement, what it demands, and its curve (SVG) if it has one."""

    rows: tuple[Row, ...]
    checks: tuple[Check, ...] = ()
    curve: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    name: str
    run: Callable[[argparse.Namespace], Measured]


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    """Microseconds of each call, the clock's own reading included; garbage collection runs."""
    gc.collect()
    taken = []
    for _ in range(rounds):
        began = perf_counter_ns()
        call()
        taken.append((perf_counter_ns() - began) / NS_PER_US)
    return taken
