"""What control planes tell the leader about rollouts: each the sums that it gathered itself.

Not desired state: no revision is made. Texts of a process that ended stay until its rollout has
moved on, so a restart loses at most the last second. `MemoryEvidence` is the specification.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

# After so long without a word they are nobody's.
KEPT_S = 7 * 86_400.0


class EvidenceTexts(Protocol):
    """A method raises RegistryUnavailable when the store does not answer in time."""

    async def tell(self, topic: str, plane: str, text: str) -> None:
        """Replaces what a control plane told of a topic."""
        ...

    async def told(self, topic: str) -> Mapping[str, str]:
        """What each control plane told last, by its name."""
        ...

    async def forget(self, topic: str) -> None: ...


class MemoryEvidence:
    """`EvidenceTexts` in a dictionary. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._texts: dict[str, tuple[float, dict[str, str]]] = {}

    async def tell(self, topic: str, plane: str, text: str) -> None:
        _, texts = self._texts.get(topic, (0.0, {}))
        texts[plane] = text
        self._texts[topic] = (self._clock() + KEPT_S, texts)

    async def told(self, topic: str) -> Mapping[str, str]:
        until, texts = self._texts.get(topic, (0.0, {}))
        return dict(texts) if self._clock() < until else {}

    async def forget(self, topic: str) -> None:
        self._texts.pop(topic, None)
