"""docs/internals.md names every file of every program, and no file that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/internals.md").read_text()
# Tables of the page, by program.
SECTIONS = {
    name: section
    for name, section in re.findall(r"### (\w+)/ .*?\n(.*?)(?=\n##)", PAGE, flags=re.DOTALL)
}


def packages(program: str) -> dict[str, set[str]]:
    """The packages of a program with their files, as the table of the page has them."""
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", SECTIONS[program], flags=re.MULTILINE)
    return {package: set(re.findall(r"`(\w+)/?`", text)) for package, text in rows}


def on_disk(program: str) -> dict[str, set[str]]:
    """The packages of a program with their files and packages inside, as they are."""
    found = {}
    for package in sorted((ROOT / program).iterdir()):
        if (package / "__init__.py").exists():
            inside = {path.stem for path in package.rglob("*.py")} - {"__init__"}
            inside |= {path.parent.name for path in package.glob("*/__init__.py")}
            found[package.name] = inside
    return found


@pytest.mark.parametrize("program", ["control_plane", "worker"])
def test_every_file_is_on_the_map(program: str) -> None:
    assert packages(program) == on_disk(program)


@pytest.mark.parametrize("program", ["control_plane", "worker", "yolopool", "importer"])
def test_the_drawing_has_every_part(program: str) -> None:
    drawing = SECTIONS[program].split("```")[1]
    drawn = set(re.findall(r"\b[a-z_]\w*\b", drawing))
    parts = {path.stem for path in (ROOT / program).glob("*.py")} - {"__init__", "__main__"}
    parts |= {path.parent.name for path in (ROOT / program).glob("*/__init__.py")}
    assert parts - drawn == set()
