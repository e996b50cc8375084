"""What an alias means: versions with weights. Pure and frozen."""

from dataclasses import dataclass

WHOLE = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """A version, and of a thousand requests how many are its own."""

    version: int
    weight: int


Targets = tuple[Target, ...]
