"""A watch: a folder or prefix whose new files become versions of a model. Pure and frozen."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

MAX_WATCHES = 200
# Files that match in one folder: what was seen of each is kept in the record.
MAX_FILES = 1000
DEFAULT_EVERY_S, DEFAULT_SETTLE_S = 30.0, 5.0
DEFAULT_PATTERNS = ("*.pt", "*.onnx")


@dataclass(frozen=True, slots=True)
class Watch:
    """`uri` is looked at each `every_s` seconds, and a file that matches one of `patterns` is
    registered once it was the same for `settle_s`. `seen`: what it knows of each file, by name, as
    `Found.stamp` says; `begun`: whether it looked at all. `error`: why the last look failed.
    """

    name: str
    uri: str
    model: str
    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    profile: str = ""
    every_s: float = DEFAULT_EVERY_S
    settle_s: float = DEFAULT_SETTLE_S
    by: str = ""
    created_unix_s: float = 0.0
    begun: bool = False
    seen: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    def asking(self, asked: "Watch") -> "Watch":
        """As asked for now. What was seen stays, if it is the same folder and model."""
        if (self.uri, self.model) != (asked.uri, asked.model):
            return asked
        kept = replace(asked, begun=self.begun, seen=self.seen, error=self.error)
        return replace(kept, created_unix_s=self.created_unix_s, by=self.by)

    def noted(self, seen: Mapping[str, str], present: Collection[str]) -> "Watch":
        """After a look: with what is known of files now; those that are gone are forgotten."""
        known = {**self.seen, **seen}
        kept = {name: known[name] for name in sorted(known) if name in present}
        return replace(self, begun=True, seen=kept, error="")
