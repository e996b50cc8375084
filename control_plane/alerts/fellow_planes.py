"""What the other control planes told of their series, and which of them are silent. Pure.

A process that ended in order takes its row away; one that did not is down until another answers at
its address, or long enough that nobody asks any more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.alerts.history import History, Readings

# Missed looks after which a control plane is down.
MISSED = 4
# Rows of processes that ended are forgotten after so long.
GONE_S = 900.0

UP = ("up", (("job", "yolopool"),))
_LEADS = "yolopool_reconciler"


@dataclass(slots=True)
class _Row:
    text: str
    place: str
    heard_s: float


def told_text(place: str, count: int, readings: Readings) -> str:
    """One look of a control plane at `place` (host:port); `count` grows with each."""
    rows = [[metric, *(part for pair in labels for part in pair), value]
            for (metric, labels), value in readings.items()]  # fmt: skip
    return json.dumps({"place": place, "count": count, "rows": rows}, separators=(",", ":"))


def readings_of(text: str) -> tuple[str, Readings]:
    """The place, and the readings. Raises ValueError, KeyError and TypeError for a text of another
    form.
    """
    raw = json.loads(text)
    found = {}
    for metric, *labels, value in raw["rows"]:
        pairs = zip(labels[::2], labels[1::2], strict=True)
        found[metric, tuple((name, of) for name, of in pairs)] = float(value)
    return raw["place"], found


class FellowPlanes:
    """`name`: this control plane's. `every_s`: how often each tells."""

    def __init__(self, name: str, every_s: float) -> None:
        self._name = name
        self._every_s = every_s
        self._rows: dict[str, _Row] = {}

    def hear(self, told: Mapping[str, str], history: History, now: float) -> list[str]:
        """Adds what is new to the history. Returns those whose row is to be taken away."""
        for name in [name for name in self._rows if name not in told]:
            del self._rows[name]
            history.drop(name)
        for name, text in told.items():
            if name != self._name:
                self._hear(name, text, history, now)
        newest: dict[str, str] = {}
        for name, row in sorted(self._rows.items(), key=lambda one: one[1].heard_s):
            newest[row.place] = name
        gone = [
            name
            for name, row in self._rows.items()
            if now - row.heard_s >= GONE_S
            or (not self._is_up(row, now) and newest[row.place] != name)
        ]
        for name, row in self._rows.items():
            if name not in gone and not self._is_up(row, now):
                history.add(name, now, {UP: 0.0})
        return gone

    def someone_leads(self, history: History) -> bool:
        """Whether a control plane says that it leads."""
        return any(history.latest(_LEADS, lambda _: True).values())

    def is_first(self, now: float) -> bool:
        """Whether this one is the first by name of those that are up."""
        up = [name for name, row in self._rows.items() if self._is_up(row, now)]
        return self._name <= min(up, default=self._name)

    def _is_up(self, row: _Row, now: float) -> bool:
        return now - row.heard_s < MISSED * self._every_s

    def _hear(self, name: str, text: str, history: History, now: float) -> None:
        row = self._rows.get(name)
        if row is not None and row.text == text:
            return
        try:
            place, readings = readings_of(text)
        except (ValueError, KeyError, TypeError):
            return  # of a release that tells otherwise
        self._rows[name] = _Row(text, place, now)
        history.add(name, now, {**readings, UP: 1.0})
