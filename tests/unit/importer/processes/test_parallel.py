"""How many imports run at once."""

import pytest

from importer.processes.parallel import cores, imports_at_once, memory_bytes

GIB = 1024**3


@pytest.mark.parametrize(
    ("cores", "memory_gib", "limit_gib", "expected"),
    [(2, 24, 4, 2), (64, 24, 4, 6), (8, 7, 4, 1), (1, 64, 4, 1), (4, 2, 4, 1), (4, 16, 4, 4)],
)
def test_one_a_core_and_no_more_than_memory_has_room_for(
    cores: int, memory_gib: int, limit_gib: int, expected: int
) -> None:
    assert imports_at_once(cores, memory_gib * GIB, limit_gib * GIB) == expected


def test_of_this_machine() -> None:
    assert cores() >= 1
    assert 10**8 < memory_bytes() < 10**15
