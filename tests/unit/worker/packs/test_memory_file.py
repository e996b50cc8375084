"""A file in memory: what is in it, and that it goes."""

import os
from pathlib import Path

import numpy as np
import pytest

from worker.packs.memory_file import memory_file
from yolopool.errors import OutOfMemory


def test_a_file_has_the_bytes_and_goes() -> None:
    content = np.arange(300_000, dtype=np.uint32).view(np.uint8)
    content.flags.writeable = False
    with memory_file(content) as path:
        assert Path(path).read_bytes() == content.tobytes()
        assert not os.get_inheritable(int(Path(path).name))
    assert not os.path.lexists(path)


def test_it_goes_with_an_error_too() -> None:
    with pytest.raises(ValueError, match="own"), memory_file(np.zeros(3, np.uint8)) as path:
        raise ValueError("own")
    assert not os.path.lexists(path)


def test_a_host_without_memory_for_it_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: memoryview) -> int:
        if len(content) < 3000:
            raise OSError(28, "No space left on device")
        return 1000

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutOfMemory, match="No space"), memory_file(np.zeros(5000, np.uint8)):
        pytest.fail("it has no bytes")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
