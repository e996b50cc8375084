"""What the exit status of a process says of how it ended. Pure."""

import signal

# Exit status of a process that gave itself up.
HUNG = 70

# By which others end a process: they say nothing of what it had in hand.
_SIGNALS = {int(one): one.name for one in signal.Signals}
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def describe_exit(code: int | None) -> str:
    """How a process ended, by what `Process.returncode` says."""
    if code is not None and code < 0:
        return f"signal {_SIGNALS.get(-code, -code)}"
    return "hung" if code == HUNG else f"exit code {code}"
