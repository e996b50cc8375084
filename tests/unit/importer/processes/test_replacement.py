"""When a prepared parent is replaced."""

import pytest

from importer.processes.replacement import MAX_FORKS, why_replaced


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"forks": MAX_FORKS - 1}, ""),
        ({"forks": MAX_FORKS}, f"{MAX_FORKS} imports"),
        ({"has_ended": True}, "ended"),
        ({"has_crashed": True}, "crashed"),
        ({"has_other_files": True}, "changed"),
        ({"has_ended": True, "has_crashed": True}, "ended"),
    ],
)
def test_what_speaks_against_another_child(changes: dict[str, int], words: str) -> None:
    given = {"forks": 0, "has_ended": False, "has_crashed": False, "has_other_files": False}
    why = why_replaced(**{**given, **changes})  # type: ignore[arg-type]  # flags and a count
    assert (words in why) if words else not why
