"""Where the file of a version comes from, if the pool fetched it itself. Pure and frozen."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """`uri` holds no secret. `profile` names credentials that control planes have. `sha256`: what
    the file must hash to; empty: whatever comes.
    """

    uri: str
    profile: str = ""
    sha256: str = ""
