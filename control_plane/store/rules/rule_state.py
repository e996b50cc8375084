"""The part of the registry that rules of models are: see `registry`."""

from collections.abc import Callable
from typing import Protocol

from control_plane.types.lease import FencingToken
from control_plane.types.policy import ModelRule, Validation
from control_plane.types.version import ModelVersion, VersionKey


class RuleState(Protocol):
    """What is set for models by their names, and how versions did at their gates. Desired state."""

    async def change_rule(
        self, pattern: str, change: Callable[[ModelRule], ModelRule]
    ) -> ModelRule:
        """Replaces the rule of a pattern by what a pure function makes of it; where there is none,
        of an empty one. A rule that says nothing goes. Returns the rule that holds now.
        """
        ...

    async def note_validation(
        self, key: VersionKey, found: Validation, token: FencingToken | None = None
    ) -> ModelVersion | None:
        """Keeps how a version did. Returns the version; None if there is none. With a token it
        raises StaleToken if the token is not the lease's.
        """
        ...
