"""The steps that turn a file into a pack, as each format supplies them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Order, artifact, folder, warnings, and what hears of each step; the ImportedPack as JSON.
Encode = Callable[
    [dict[str, Any], Path, Path, Sequence[str], Callable[[float, str], None]], dict[str, Any]
]
