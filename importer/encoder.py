"""The type of the function that turns a file into a pack; each format has its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Takes order, artifact, folder, warnings and a progress callback; returns an ImportedPack as JSON.
Encode = Callable[
    [dict[str, Any], Path, Path, Sequence[str], Callable[[float, str], None]], dict[str, Any]
]
