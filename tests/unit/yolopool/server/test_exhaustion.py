"""What the operating system says, as an error that says which disk, and what to do."""

import errno
import os
from pathlib import Path

import pytest

from yolopool.server.exhaustion import storing, typed


def of(number: int, filename: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), filename)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (of(errno.ENOSPC), "DISK_FULL"), (of(errno.EDQUOT), "DISK_FULL"),
        (of(errno.EFBIG), "DISK_FULL"), (of(errno.EROFS), "STORAGE_FAILED"),
        (of(errno.EIO), "STORAGE_FAILED"), (of(errno.EMFILE), "OUT_OF_FILES"),
        (of(errno.ENFILE), "OUT_OF_FILES"), (of(errno.ENOMEM), "OUT_OF_MEMORY"),
        (MemoryError(), "OUT_OF_MEMORY"),
        (RuntimeError("can't start new thread"), "OUT_OF_MEMORY"),
    ],
)  # fmt: skip
def test_what_ran_out(error: Exception, reason: str) -> None:
    said = typed(error)
    assert said is not None
    assert said.reason == reason
    assert said.retryable


@pytest.mark.parametrize("error", [of(errno.ENOENT), of(errno.ECONNRESET), RuntimeError("no")])
def test_anything_else_is_not_about_room(error: Exception) -> None:
    assert typed(error) is None


def test_the_folder_is_named() -> None:
    for said in (typed(of(errno.ENOSPC), "/packs"), typed(of(errno.ENOSPC, "/packs"))):
        assert said is not None
        assert said.details == {"place": "/packs"}
        assert "/packs" in said.message


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(FileNotFoundError), storing(Path("/packs")):
        raise of(errno.ENOENT)
