"""Caches that load on demand, to compare with: LRU, LFU, GDSF, and one that knows popularities.

Pure. A miss is always loaded; the least valuable leave until it fits. Devices serve in order of
arrival, a load before its request. GDSF: Cherkasova, "Improving WWW Proxies Performance with
Greedy-Dual-Size-Frequency Caching Policy" (1998).
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from benchmarks.simulation.outcome import Departure, Load, Outcome
from benchmarks.simulation.traces import Floats, Trace


class Policy(Protocol):
    """What a cache asks; `number` counts requests."""

    def asked(self, id_: int, number: int, is_held: bool) -> None:
        """A model was asked for; called before it is loaded."""
        ...

    def left(self, id_: int) -> None:
        """It was chosen to leave."""
        ...

    def worth(self, id_: int) -> float:
        """Of one that is held: the least leaves first."""
        ...


class Lru:
    def __init__(self, trace: Trace, costs: Floats) -> None:
        self._used: dict[int, int] = {}

    def asked(self, id_: int, number: int, is_held: bool) -> None:
        self._used[id_] = number

    def left(self, id_: int) -> None:
        """Nothing is kept of those that are not held."""

    def worth(self, id_: int) -> float:
        return self._used[id_]


class Lfu:
    """Counts every request from the beginning, of those not held too."""

    def __init__(self, trace: Trace, costs: Floats) -> None:
        self._count = [0] * len(trace.models)
        self._used = [0] * len(trace.models)
        self._length = len(trace) + 1

    def asked(self, id_: int, number: int, is_held: bool) -> None:
        self._count[id_] += 1
        self._used[id_] = number

    def left(self, id_: int) -> None:
        """Counts stay."""

    def worth(self, id_: int) -> float:
        return self._count[id_] + self._used[id_] / self._length


class Gdsf:
    def __init__(self, trace: Trace, costs: Floats) -> None:
        self._per_use = (costs / trace.sizes).tolist()
        self._clock = 0.0
        self._count: dict[int, int] = {}
        self._worth: dict[int, float] = {}

    def asked(self, id_: int, number: int, is_held: bool) -> None:
        self._count[id_] = self._count.get(id_, 0) + 1 if is_held else 1
        self._worth[id_] = self._clock + self._count[id_] * self._per_use[id_]

    def left(self, id_: int) -> None:
        self._clock = self._worth[id_]

    def worth(self, id_: int) -> float:
        return self._worth[id_]


class Oracle:
    """Knows the rates of every phase: keeps what is worth most, by rate x cost / size."""

    def __init__(self, trace: Trace, costs: Floats) -> None:
        self._phases = [(p.first, (p.rates * costs / trace.sizes).tolist()) for p in trace.phases]
        self._worth: list[float] = self._phases[0][1]

    def asked(self, id_: int, number: int, is_held: bool) -> None:
        while self._phases and number >= self._phases[0][0]:
            self._worth = self._phases.pop(0)[1]

    def left(self, id_: int) -> None:
        """Rates stay."""

    def worth(self, id_: int) -> float:
        return self._worth[id_]


POLICIES: Mapping[str, Callable[[Trace, Floats], Policy]] = {
    "LRU": Lru,
    "LFU": Lfu,
    "GDSF": Gdsf,
    "popularity oracle": Oracle,
}


def replay(trace: Trace, costs: Floats, name: str) -> Outcome:
    """One policy of POLICIES on a trace; `costs`: seconds that a load of each model takes."""
    policy = POLICIES[name](trace, costs)
    sizes = [model.weights_bytes for model in trace.models]
    held: set[int] = set()
    free = trace.room_bytes
    hot = np.zeros(len(trace), np.bool_)
    loads: list[Load] = []
    drainer: list[Departure] = []
    moments = trace.at.tolist()
    for number, id_ in enumerate(trace.ids.tolist()):
        is_held = id_ in held
        policy.asked(id_, number, is_held)
        if is_held:
            hot[number] = True
            continue
        while free < sizes[id_]:
            victim = min(held, key=lambda one: (policy.worth(one), one))
            held.remove(victim)
            policy.left(victim)
            free += sizes[victim]
            drainer.append(Departure(moments[number], victim))
        held.add(id_)
        free -= sizes[id_]
        loads.append(Load(moments[number], id_, float(costs[id_])))
    waited = np.where(hot, 0.0, costs[trace.ids])
    runs = np.array([model.pass_s for model in trace.models])[trace.ids]
    return Outcome(name, trace, hot, in_order(trace.at, waited + runs), waited, loads, drainer)


def in_order(at: Floats, service_s: Floats) -> Floats:
    """Seconds from arrival to the end of service, one at a time (Lindley's recursion unrolled)."""
    done = np.cumsum(service_s)
    # A request ends when the last idle moment before it began plus all work since.
    began = np.maximum.accumulate(at - (done - service_s))
    return np.asarray(began + done - at)
