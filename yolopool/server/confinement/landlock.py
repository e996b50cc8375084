"""Landlock: a process gives up access to files, for itself and all that it starts, for good.

The kernel's own interface, by its three system calls, and nothing but the standard library: what a
version of the kernel knows of it is its "ABI", and what it does not know is left out of the rules.
https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import errno
import os
import platform
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# The same numbers on every architecture that Python runs on, but for alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_FOR_ABI, _ALL_THREADS = 1, 1 << 3
_RULE_OF_PATH = 1
_PR_SET_NO_NEW_PRIVS = 38
# Rights, as include/uapi/linux/landlock.h numbers them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = (1 << bit for bit in range(6, 12))
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV, RESOLVE_UNIX = (1 << bit for bit in range(12, 17))
# What may be done with a file that is no folder.
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract UNIX sockets and signals stay within the process and its children

READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
# Files, folders, links: no devices, no sockets.
CHANGE = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
)
USE_DEVICE = READ | WRITE_FILE | IOCTL_DEV
# Since this ABI files that may not be written can't be cut short either.
WHOLE_ABI = 3
# Since this ABI a process that has threads can be restricted.
_THREADS_ABI = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """What may still be done: `places` with their rights. With `reads_everything` only changes are
    restricted. Without `connects`, TCP and other processes' UNIX sockets are closed too, where the
    kernel can.
    """

    places: tuple[tuple[Path, int], ...]
    reads_everything: bool = False
    connects: bool = True


def abi() -> int:
    """The version of Landlock that the kernel has; 0: none, or it is switched off, or a container
    runtime does not let it through.
    """
    if platform.system() != "Linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _ASK_FOR_ABI)))


def confine(rules: Rules) -> str:
    """Restricts this process. Returns what is missing, in words; empty: nothing.

    A place that does not exist is passed over. Sets no_new_privs, without which the kernel refuses.
    """
    known = abi()
    if not known:
        return "Landlock is not in its kernel, or switched off there"
    threads = _threads()
    if threads > 1 and known < _THREADS_ABI:
        return f"{threads} threads run already"
    libc = _libc()
    attributes = ruleset(known, rules)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"no_new_privs is refused, {_last_error()}"
    handle = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if handle < 0:
        return f"a ruleset is refused, {_last_error()}"
    try:
        handled = handled_rights(known, rules)
        for place, rights in _opened(rules.places):
            try:
                rule = rule_of(rights & handled, place, os.fstat(place).st_mode)
                if rule and libc.syscall(_ADD_RULE, handle, _RULE_OF_PATH, rule, 0) != 0:
                    return f"a rule is refused, {_last_error()}"
            finally:
                os.close(place)
        flags = _ALL_THREADS if known >= _THREADS_ABI else 0
        if libc.syscall(_RESTRICT_SELF, handle, flags) != 0:
            return f"the rules are refused, {_last_error()}"
    finally:
        os.close(handle)
    if known < WHOLE_ABI:
        return f"Landlock of its kernel (ABI {known}) lets every file be cut short: 6.2 does not"
    return ""


def handled_rights(known: int, rules: Rules) -> int:
    """The rights that are withheld where no place grants them."""
    rights = (1 << 13) - 1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV), (9, RESOLVE_UNIX)):
        if known >= since:
            rights |= right
    open_to_all = RUN if rules.reads_everything else 0
    return rights & ~(open_to_all | (RESOLVE_UNIX if rules.connects else 0))


def ruleset(known: int, rules: Rules) -> bytes:
    """`struct landlock_ruleset_attr`, as long as this ABI knows it."""
    attributes = struct.pack("=Q", handled_rights(known, rules))
    if known >= 4:
        attributes += struct.pack("=Q", 0 if rules.connects else _TCP)
    if known >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    return attributes


def rule_of(rights: int, place: int, mode: int) -> bytes:
    """`struct landlock_path_beneath_attr`, packed, for an open file; empty if it grants nothing."""
    granted = rights if stat.S_ISDIR(mode) else rights & _OF_FILES
    return struct.pack("=Qi", granted, place) if granted else b""


def _opened(places: Iterable[tuple[Path, int]]) -> Iterator[tuple[int, int]]:
    for place, rights in places:
        try:
            yield os.open(place, os.O_PATH | os.O_CLOEXEC), rights
        except OSError:
            continue  # it is not there, or not ours to reach: nothing is granted


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _last_error() -> str:
    return errno.errorcode.get(ctypes.get_errno(), "?")
