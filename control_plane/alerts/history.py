"""What each control plane told of its series within the last minutes. Pure.

A series keeps only the looks at which it changed, and counters as what they grew to since the first
look, so that a counter of a process that began anew grows on.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Names and values of labels, sorted by name.
Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]
# Of one control plane at one time.
Readings = Mapping[Series, float]

# How far back rules look, and some.
KEPT_S = 1000.0
# Series of one control plane: those beyond are not kept.
MAX_SERIES = 8000


@dataclass(slots=True)
class _Track:
    """A series, with the control plane among its `labels`: when it changed, and to what; `last` is
    what was told, `grown` what a counter came to.
    """

    labels: Labels
    times: "array[float]"
    values: "array[float]"
    last: float
    grown: float
    seen_s: float

    @classmethod
    def begun(cls, labels: Labels, now: float, value: float) -> "_Track":
        return cls(labels, array("d", (now,)), array("d", (0.0,)), value, 0.0, now)

    def look(self, now: float, value: float) -> None:
        if value != self.last:
            self.grown += value - self.last if value > self.last else value
            self.times.append(now)
            self.values.append(self.grown)
        self.last, self.seen_s = value, now

    def grown_since(self, then: float) -> float:
        at = bisect_right(self.times, then) - 1
        return self.grown - self.values[max(at, 0)]

    def forget(self, before: float) -> None:
        old = bisect_right(self.times, before) - 1
        if old > 0:
            del self.times[:old], self.values[:old]


@dataclass(slots=True)
class _Told:
    """What one control plane told: when first and last, and its series by metric."""

    first_s: float
    last_s: float
    tracks: dict[str, dict[Labels, _Track]] = field(default_factory=dict)
    count: int = 0


class History:
    """`add` looks as they come; all times on one clock, seconds."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._planes: dict[str, _Told] = {}

    def add(self, plane: str, now: float, readings: Readings) -> None:
        """A look of a control plane at its series. Each has the label `instance` from here on."""
        told = self._planes.get(plane)
        is_first = told is None
        if told is None:
            told = self._planes[plane] = _Told(now, now)
        for (metric, labels), value in readings.items():
            tracks = told.tracks.setdefault(metric, {})
            track = tracks.get(labels)
            if track is None:
                if told.count >= MAX_SERIES:
                    continue
                told.count += 1
                # Where it stood before anyone looked is no growth; a later one began at 0.
                since = (now, value) if is_first else (told.last_s, 0.0)
                track = tracks[labels] = _Track.begun(_of(labels, plane), *since)
            track.look(now, value)
        told.last_s = now
        self._forget(told, now)

    def drop(self, plane: str) -> None:
        self._planes.pop(plane, None)

    @property
    def planes(self) -> Mapping[str, float]:
        """When each control plane was last heard of."""
        return {name: told.last_s for name, told in self._planes.items()}

    def covered_s(self, now: float) -> float:
        """How far back is known what the control planes counted: as long as anyone is known."""
        return max((now - told.first_s for told in self._planes.values()), default=0.0)

    def latest(self, metric: str, matches: Callable[[Series], bool]) -> dict[Labels, float]:
        """Values of the last look of each control plane."""
        return {
            track.labels: track.last
            for told in self._planes.values()
            for labels, track in told.tracks.get(metric, {}).items()
            if track.seen_s == told.last_s and matches((metric, labels))
        }

    def increase(
        self, metric: str, matches: Callable[[Series], bool], since: float
    ) -> dict[Labels, float]:
        """What counters grew by since a time."""
        return {
            track.labels: track.grown_since(since)
            for told in self._planes.values()
            for labels, track in told.tracks.get(metric, {}).items()
            if matches((metric, labels))
        }

    def _forget(self, told: _Told, now: float) -> None:
        before = now - self._kept_s
        for tracks in told.tracks.values():
            for labels, track in list(tracks.items()):
                if track.seen_s < before:
                    del tracks[labels]
                    told.count -= 1
                elif len(track.times) > 1 and track.times[1] < before:
                    track.forget(before)


def _of(labels: Labels, plane: str) -> Labels:
    return tuple(sorted((*labels, ("instance", plane))))
