"""Slots of one memory: never two in one place, nothing lost, whole again when all are back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.preprocess.free_list import ALIGN_BYTES, FreeList

PAGES = 32


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9 * ALIGN_BYTES), st.integers(0, 99))))
def test_slots_never_overlap_and_all_come_back(steps: list[tuple[bool, int, int]]) -> None:
    slots = FreeList(PAGES * ALIGN_BYTES)
    lent: dict[int, int] = {}
    for take, size, which in steps:
        if take:
            offset = slots.allocate(size)
            used = {page for at, s in lent.items() for page in pages(at, s)}
            if offset is None:
                # Refused only where no run of free pages is long enough.
                need = len(pages(0, size))
                free = "".join(" x"[page in used] for page in range(PAGES))
                assert " " * need not in free
                continue
            assert offset + size <= slots.size_bytes
            assert not used & set(pages(offset, size))
            lent[offset] = size
        elif lent:
            offset = sorted(lent)[which % len(lent)]
            slots.free(offset)
            del lent[offset]
        assert len(slots) == len(lent)
    for offset in lent:
        slots.free(offset)
    assert slots.allocate(slots.size_bytes) == 0


def test_what_is_not_lent_is_not_taken_back() -> None:
    slots = FreeList(PAGES * ALIGN_BYTES)
    assert slots.allocate(1) == 0
    slots.free(0)
    with pytest.raises(KeyError):
        slots.free(0)
    assert FreeList(0).allocate(1) is None


def pages(offset: int, size: int) -> range:
    """Pages that a slot touches."""
    return range(offset // ALIGN_BYTES, -(-(offset + size) // ALIGN_BYTES))
