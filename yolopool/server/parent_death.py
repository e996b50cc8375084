"""How a process of the pool ends with the one that started it, even if that one is killed.

Linux sends the signal, but only for a death after it was asked to; so the parent leaves its number
in the environment for the child to compare. Only the standard library is used here.

As a script it becomes another program, which then ends so too: `command` makes its command line.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence

_VARIABLE = "YOLOPOOL_PARENT_PID"


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What a child of this process is to be started with, so that `die_with_parent` can tell."""
    return {**inherited, _VARIABLE: str(os.getpid())}


def command(program: Sequence[str]) -> list[str]:
    """Starts a program that knows nothing of this, by way of this file: code between fork and exec
    (`preexec_fn`) may not run beside the threads of a client.
    """
    return [sys.executable, "-I", "-S", __file__, *program]


def die_with_parent() -> None:
    """Sends this process SIGTERM when its parent dies, or now if it has died already."""
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
