"""What the kernel is told, by the ABI that it has: the bytes, not that it obeys them."""

import stat
import struct
from pathlib import Path

import pytest

from yolopool.server.confinement import landlock
from yolopool.server.confinement.landlock import Rules

SHUT = Rules((), connects=False)
OPEN = Rules((), reads_everything=True)


@pytest.mark.parametrize(
    ("abi", "size", "fs", "net", "scoped"),
    [
        # As include/uapi/linux/landlock.h says which rights came when.
        (1, 8, 0x1FFF, None, None),
        (2, 8, 0x3FFF, None, None),
        (3, 8, 0x7FFF, None, None),
        (4, 16, 0x7FFF, 0b11, None),
        (5, 16, 0xFFFF, 0b11, None),
        (6, 24, 0xFFFF, 0b11, 0b11),
        (8, 24, 0xFFFF, 0b11, 0b11),
        (9, 24, 0x1FFFF, 0b11, 0b11),
        # A later kernel knows more; what it does not hear of stays allowed.
        (12, 24, 0x1FFFF, 0b11, 0b11),
    ],
)
def test_a_kernel_is_told_only_what_it_knows(
    abi: int, size: int, fs: int, net: int | None, scoped: int | None
) -> None:
    attributes = landlock.ruleset(abi, SHUT)
    assert len(attributes) == size
    words = struct.unpack(f"={size // 8}Q", attributes)
    assert words == tuple(word for word in (fs, net, scoped) if word is not None)


def test_a_process_that_connects_keeps_its_sockets() -> None:
    fs, net, scoped = struct.unpack("=3Q", landlock.ruleset(9, Rules(())))
    assert not fs & landlock.RESOLVE_UNIX
    assert net == 0
    assert scoped == 0b11


def test_a_process_that_reads_everything_may_still_change_nothing() -> None:
    handled = landlock.handled_rights(9, OPEN)
    assert not handled & landlock.RUN
    assert handled & landlock.CHANGE == landlock.CHANGE & ~landlock.READ
    assert handled & landlock.IOCTL_DEV


def test_a_rule_of_a_file_has_no_rights_of_folders() -> None:
    """The kernel refuses such a rule whole."""
    folder = landlock.rule_of(landlock.CHANGE, 7, stat.S_IFDIR)
    assert struct.unpack("=Qi", folder) == (landlock.CHANGE, 7)
    granted, place = struct.unpack("=Qi", landlock.rule_of(landlock.CHANGE, 8, stat.S_IFREG))
    assert place == 8
    assert granted == landlock.READ_FILE | landlock.WRITE_FILE | landlock.TRUNCATE
    assert landlock.rule_of(landlock.READ_DIR, 9, stat.S_IFREG) == b""


def test_no_right_makes_devices_or_sockets() -> None:
    made = landlock.MAKE_CHAR | landlock.MAKE_BLOCK | landlock.MAKE_SOCK | landlock.MAKE_FIFO
    assert not (landlock.CHANGE | landlock.RUN | landlock.USE_DEVICE) & made
    assert not landlock.CHANGE & landlock.EXECUTE


@pytest.mark.parametrize(("abi", "lacks"), [(0, "not in its kernel"), (7, "threads run already")])
def test_what_is_missing_is_said(abi: int, lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is restricted then, or this process could write no further test's files."""
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    monkeypatch.setattr(landlock, "_threads", lambda: 2)
    assert lacks in landlock.confine(Rules((), connects=False))
    assert (Path("/proc/self/status")).read_text()
