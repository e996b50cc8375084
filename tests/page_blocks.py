"""The fenced blocks of the pages, and how each is tried.

`sh` and `python` blocks are run in the order of their page by tests/e2e/test_docs.py; `json`,
`yaml` and `toml` are parsed; `text` is what programs print, and drawings. A comment on the line
above a block says that it is tried otherwise:

    <!-- not run: needs docker -->             one of NOT_RUN
    <!-- run by: tests/e2e/test_up.py -->      that test runs the same command
    <!-- run in full -->                       too long for `make test`; `make test-full` runs it
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
SHELL, PYTHON = "sh", "python"
DATA = ("json", "yaml", "toml")
PRINTED = "text"
LANGUAGES = (SHELL, PYTHON, *DATA, PRINTED)
# Why a block can't be run by a test of this repository.
NOT_RUN = (
    "needs a CUDA device",
    "needs docker",
    "needs a Kubernetes cluster",
    "needs processors of two classes",
    "needs a camera",
    "needs a store outside",
    "needs a collector of traces",
    "needs a log of a pool that ran for a while",
    "needs another toolchain",
    "needs the server that is replaced",
    "builds an environment",
    "trains for minutes",
)

_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>(?:not run|run by|run in full)[^\n]*?) -->\n+)?"
    r"(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it is, what it is of, and the marker above it, if any."""

    page: str
    line: int
    language: str
    text: str
    marker: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        """Of the marker: `not run`, `run by`, `run in full`, or empty."""
        return self.marker.partition(":")[0].strip()

    @property
    def said(self) -> str:
        """What the marker says: the reason, or the test."""
        return self.marker.partition(":")[2].strip()

    def is_run(self, full: bool) -> bool:
        """Whether the runner runs it, in a full run or another."""
        runs = self.language in (SHELL, PYTHON)
        return runs and (not self.marker or (full and self.kind == "run in full"))


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page, in its order."""
    for found in _BLOCK.finditer(text):
        yield Block(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"].strip(),
            found["text"] if not found["indent"] else textwrap.dedent(found["text"]),
            (found["marker"] or "").strip(),
        )


def not_run() -> dict[str, list[str]]:
    """The reasons of a page's blocks that no test runs, by the page's path."""
    pages = blocks_of_pages().items()
    found = {page: [one.said for one in blocks if one.kind == "not run"] for page, blocks in pages}
    return {page: list(dict.fromkeys(reasons)) for page, reasons in found.items() if reasons}


def blocks_of_pages() -> dict[str, list[Block]]:
    """The blocks of every page of this repository, by the page's path."""
    names = [str(path.relative_to(ROOT)) for path in PAGES]
    return {name: list(blocks_of(name, (ROOT / name).read_text())) for name in names}
