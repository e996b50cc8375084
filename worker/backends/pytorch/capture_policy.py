"""Decides which passes are captured as a CUDA graph. Pure.

A graph serves one architecture, precision, shape and batch size, for any model: the model's weights
are copied to where the graph reads them. All graphs share one memory pool. Its working part is that
of the largest graph, since one runs at a time. The pool is freed only when all graphs are dropped.
"""

from dataclasses import dataclass, field
from enum import Enum

# Passes after which a kind is captured: of a square shape, and of any other. At most MAX_OTHERS of
# the latter are captured.
SQUARE_AFTER, OTHER_AFTER, MAX_OTHERS = 3, 50, 4
# All graphs are dropped for a kind that is seen so many times as often as the rarest captured one.
WORTH_A_CHANGE = 4
# Passes after which earlier passes count half.
HALF_LIFE = 4096


class CaptureDecision(Enum):
    EAGER = "eager"
    CAPTURE = "capture"
    REPLAY = "replay"
    # Drop all graphs; the next pass of this kind is captured.
    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class GraphKey:
    """The kind of passes that one graph serves; shape is (height, width) in pixels."""

    architecture: str
    precision: str
    shape: tuple[int, int]
    batch: int

    @property
    def is_square(self) -> bool:
        return self.shape[0] == self.shape[1]

    @property
    def slot(self) -> tuple[str, str]:
        """Which slot of weights it reads: all models of an architecture and precision share one."""
        return (self.architecture, self.precision)


@dataclass(frozen=True, slots=True)
class GraphBytes:
    """Bytes of a graph: of its slot of weights, of its passes, and of its input and answer."""

    slot_bytes: int
    workspace_bytes: int
    held_bytes: int


@dataclass(slots=True)
class CapturePolicy:
    """The captured graphs, and the kinds that were seen; `budget_bytes` bounds all graphs."""

    budget_bytes: int
    captured: dict[GraphKey, GraphBytes] = field(default_factory=dict)
    _seen: dict[GraphKey, float] = field(default_factory=dict)
    _refused: set[GraphKey] = field(default_factory=set)
    _passes: int = 0

    def decide(self, kind: GraphKey, need: GraphBytes) -> CaptureDecision:
        """How the next pass runs; counts it."""
        self._count(kind)
        if kind in self.captured:
            return CaptureDecision.REPLAY
        if kind in self._refused or not self._is_often(kind):
            return CaptureDecision.EAGER
        if _bytes({**self.captured, kind: need}) <= self.budget_bytes:
            return CaptureDecision.CAPTURE
        if _bytes({kind: need}) > self.budget_bytes:
            return CaptureDecision.EAGER
        rarest = min(self._seen.get(captured, 0.0) for captured in self.captured)
        return (
            CaptureDecision.RENEW
            if self._seen[kind] >= WORTH_A_CHANGE * rarest
            else CaptureDecision.EAGER
        )

    def note(self, kind: GraphKey, need: GraphBytes) -> None:
        """Notes that it is captured."""
        self.captured[kind] = need

    def refuse(self, kind: GraphKey) -> None:
        """Notes that it can't be captured now. It is retried once all graphs are dropped, or after
        HALF_LIFE passes, since memory may have been missing.
        """
        self._refused.add(kind)

    def dropped(self) -> None:
        """Notes that all graphs were dropped."""
        self.captured.clear()
        self._refused.clear()

    def _is_often(self, kind: GraphKey) -> bool:
        if kind.is_square:
            return self._seen[kind] >= SQUARE_AFTER
        others = sum(not captured.is_square for captured in self.captured)
        return self._seen[kind] >= OTHER_AFTER and others < MAX_OTHERS

    def _count(self, kind: GraphKey) -> None:
        self._seen[kind] = self._seen.get(kind, 0.0) + 1
        self._passes += 1
        if self._passes % HALF_LIFE == 0:
            self._refused.clear()
            # Kinds that were not seen for long are forgotten, so that this stays small.
            seen = self._seen.items()
            self._seen = {key: count / 2 for key, count in seen if count >= 1 or key == kind}


def _bytes(needs: dict[GraphKey, GraphBytes]) -> int:
    slots = {kind.slot: need.slot_bytes for kind, need in needs.items()}
    workspace = max((need.workspace_bytes for need in needs.values()), default=0)
    return sum(slots.values()) + workspace + sum(need.held_bytes for need in needs.values())
