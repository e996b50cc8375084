"""What became of a trace under one policy, and the figures of it. Pure.

Only requests from `counted_from` on count, loads and departures from their time on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.simulation.traces import Floats, Trace

# A model asked for again within this time after it left was in rotation, by the plain meaning.
SOON_S = 60.0
# A model is in rotation, as opposed to on the verge of it, from so many times the value of the
# least that is worth keeping: what is closer, counts of some dozens do not tell apart.
CLEARLY = 1.5


@dataclass(frozen=True, slots=True)
class Load:
    """Bringing a model to a device: when it began or was done, and the seconds it took."""

    at: float
    id: int
    cost_s: float


@dataclass(frozen=True, slots=True)
class Departure:
    """A model left a device."""

    at: float
    id: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """By request: whether its model was ready when it came, seconds to its answer (nan: none), and
    those of them, if it was not, beyond a pass.
    """

    policy: str
    trace: Trace
    hot: np.ndarray[tuple[int], np.dtype[np.bool_]]
    latency_s: Floats
    waited_s: Floats
    loads: Sequence[Load]
    drainer: Sequence[Departure]

    @property
    def begin_s(self) -> float:
        return float(self.trace.at[self.trace.counted_from])

    @property
    def counted_loads(self) -> list[Load]:
        return [load for load in self.loads if load.at >= self.begin_s]

    @property
    def hit_rate(self) -> float:
        return float(self.hot[self.trace.counted_from :].mean())

    @property
    def load_rate(self) -> float:
        """Loads a request: the misses of a cache."""
        return len(self.counted_loads) / (len(self.trace) - self.trace.counted_from)

    @property
    def cold_s(self) -> float:
        """What all loads cost."""
        return sum(load.cost_s for load in self.counted_loads)

    @property
    def waited_total_s(self) -> float:
        return float(np.nansum(self.waited_s[self.trace.counted_from :]))

    @property
    def unanswered(self) -> int:
        return int(np.isnan(self.latency_s).sum())

    @property
    def loads_a_minute(self) -> float:
        seconds = float(self.trace.at[-1]) - self.begin_s
        return 60 * len(self.counted_loads) / max(seconds, 1e-9)

    def latency_ms(self, fraction: float) -> float:
        """Quantile of the answered."""
        counted = self.latency_s[self.trace.counted_from :]
        return 1e3 * float(np.nanquantile(counted, fraction))

    def back_soon(self) -> float:
        """Departures after which the model was asked for within SOON_S, as a share of loads."""
        return self._share([d for d in self._counted() if self._back_s(d) <= SOON_S])

    def in_rotation(self, costs: Floats, clearly: float = CLEARLY) -> float:
        """Departures of models that were clearly worth keeping, as a share of loads."""
        kept = keepers(self.trace, costs, clearly)
        return self._share([d for d in self._counted() if d.id in kept[self._phase(d.at)]])

    def hit_curve(self, parts: int = 100) -> list[float]:
        """Hit rate of each part of the trace, the uncounted beginning too."""
        return [float(part.mean()) for part in np.array_split(self.hot, parts) if len(part)]

    def _counted(self) -> list[Departure]:
        return [d for d in self.drainer if d.at >= self.begin_s]

    def _share(self, drainer: Sequence[Departure]) -> float:
        return len(drainer) / max(1, len(self.counted_loads))

    def _back_s(self, departure: Departure) -> float:
        asked = self.trace.at[self.trace.ids == departure.id]
        later = asked[np.searchsorted(asked, departure.at, "right") :]
        return float(later[0] - departure.at) if len(later) else float("inf")

    def _phase(self, at: float) -> int:
        request = int(np.searchsorted(self.trace.at, at))
        return sum(phase.first <= request for phase in self.trace.phases) - 1


def keepers(trace: Trace, costs: Floats, clearly: float = 1.0) -> list[frozenset[int]]:
    """By phase: the models of most value a byte (rate x cost / size) that fit beside the largest
    one that is not among them; of them those worth so many times the least of them.
    """
    found = []
    sizes = trace.sizes
    for phase in trace.phases:
        values = phase.rates * costs / sizes
        order = np.argsort(-values, kind="stable")
        kept = order[np.cumsum(sizes[order]) <= trace.room_bytes - sizes.max()]
        # Those never asked for are no keepers, however much room there is.
        kept = kept[phase.rates[kept] > 0]
        clear = kept[values[kept] >= clearly * values[kept].min(initial=np.inf)]
        found.append(frozenset(int(id_) for id_ in clear))
    return found
