"""Ends a process when the one that started it dies, even by SIGKILL.

Linux sends the signal, but only for a death after the child asked for it. So the parent puts its
pid into the environment, and the child compares. Standard library only.

As a script it becomes another program that ends so too; `command` makes the command line.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence

_VARIABLE = "YOLOPOOL_PARENT_PID"


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child of this process, for `die_with_parent` to read."""
    return {**inherited, _VARIABLE: str(os.getpid())}


def command(program: Sequence[str]) -> list[str]:
    """The command line that starts a program through this file, so that it dies with its parent.

    `preexec_fn` would run code between fork and exec, which is not safe beside threads.
    """
    return [sys.executable, "-I", "-S", __file__, *program]


def die_with_parent() -> None:
    """Makes the kernel send SIGTERM when the parent dies; sends it now if the parent is dead."""
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1  # noqa: N806 - the kernel's name
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = os.environ.get(_VARIABLE, "")
    if parent.isdigit() and int(parent) != os.getppid():
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    die_with_parent()
    os.execv(sys.argv[1], sys.argv[1:])
