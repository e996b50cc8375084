"""Which passes are captured as a graph of their device: pure.

A graph is of one architecture, precision, shape and batch, whatever the model: its weights are
copied to where the graph reads them. All graphs share one pool of memory, whose working part is
that of the largest, since one runs at a time; what leaves it alone comes back only with all.
"""

from dataclasses import dataclass, field
from enum import Enum

# Passes after which a square shape is captured, and any other, of which only so many are.
SQUARE_AFTER, OTHER_AFTER, MOST_OTHERS = 3, 50, 4
# All begin anew only for one that is seen so many times as often as the least of those there.
WORTH_A_CHANGE = 4
# Passes after which what was seen counts half.
HALF_LIFE = 4096


class CaptureDecision(Enum):
    EAGER = "eager"
    CAPTURE = "capture"
    REPLAY = "replay"
    # All graphs are to be dropped; the next pass of this kind is captured.
    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class GraphKey:
    """Passes that one graph is good for; shape is (height, width) in pixels."""

    architecture: str
    precision: str
    shape: tuple[int, int]
    batch: int

    @property
    def is_square(self) -> bool:
        return self.shape[0] == self.shape[1]

    @property
    def slot(self) -> tuple[str, str]:
        """Whose weights it reads: one place for all models of it."""
        return (self.architecture, self.precision)


@dataclass(frozen=True, slots=True)
class GraphBytes:
    """Bytes of a graph: of its weights' place, of its passes, of its input and answer."""

    slot_bytes: int
    workspace_bytes: int
    held_bytes: int


@dataclass(slots=True)
class CapturePolicy:
    """The graphs there are, and what was seen; `budget_bytes` bounds them all."""

    budget_bytes: int
    captured: dict[GraphKey, GraphBytes] = field(default_factory=dict)
    _seen: dict[GraphKey, float] = field(default_factory=dict)
    _refused: set[GraphKey] = field(default_factory=set)
    _passes: int = 0

    def decide(self, kind: GraphKey, need: GraphBytes) -> CaptureDecision:
        """How the next pass is to run; counts it."""
        self._count(kind)
        if kind in self.captured:
            return CaptureDecision.REPLAY
        if kind in self._refused or not self._is_often(kind):
            return CaptureDecision.EAGER
        if _bytes({**self.captured, kind: need}) <= self.budget_bytes:
            return CaptureDecision.CAPTURE
        if _bytes({kind: need}) > self.budget_bytes:
            return CaptureDecision.EAGER
        least = min(self._seen.get(one, 0.0) for one in self.captured)
        return (
            CaptureDecision.RENEW
            if self._seen[kind] >= WORTH_A_CHANGE * least
            else CaptureDecision.EAGER
        )

    def note(self, kind: GraphKey, need: GraphBytes) -> None:
        """It is captured now."""
        self.captured[kind] = need

    def refuse(self, kind: GraphKey) -> None:
        """It can't be captured now; when all are gone or after HALF_LIFE passes it is tried again,
        since memory may have been what was missing.
        """
        self._refused.add(kind)

    def dropped(self) -> None:
        """All graphs are gone."""
        self.captured.clear()
        self._refused.clear()

    def _is_often(self, kind: GraphKey) -> bool:
        if kind.is_square:
            return self._seen[kind] >= SQUARE_AFTER
        others = sum(not one.is_square for one in self.captured)
        return self._seen[kind] >= OTHER_AFTER and others < MOST_OTHERS

    def _count(self, kind: GraphKey) -> None:
        self._seen[kind] = self._seen.get(kind, 0.0) + 1
        self._passes += 1
        if self._passes % HALF_LIFE == 0:
            self._refused.clear()
            # What was not seen for long is forgotten, so that this stays small.
            self._seen = {one: n / 2 for one, n in self._seen.items() if n >= 1 or one == kind}


def _bytes(needs: dict[GraphKey, GraphBytes]) -> int:
    slots = {kind.slot: need.slot_bytes for kind, need in needs.items()}
    workspace = max((need.workspace_bytes for need in needs.values()), default=0)
    return sum(slots.values()) + workspace + sum(need.held_bytes for need in needs.values())
