"""A picture is the same picture by every way, or the page says why not."""

import pytest

from tests import picture_table
from tests.picture_table import EXPLAINED, PAGE, Cell

# Of the model library's way with palettes.
pytestmark = pytest.mark.filterwarnings("ignore:Palette images:UserWarning")
Outcomes = list[tuple[Cell, str]]


@pytest.fixture(scope="module")
def found() -> Outcomes:
    return picture_table.outcomes()


def test_no_cell_differs_without_a_word(found: Outcomes) -> None:
    differ = {(cell.row, cell.column) for cell, said in found if said != "0" and not said.isupper()}
    assert differ == set(EXPLAINED)


def test_the_page_shows_the_tables(found: Outcomes) -> None:
    is_made = PAGE.read_text() == picture_table.page(found)
    assert is_made, "run python -m tests.picture_table --write"
