"""What an exit status says about how a process ended. Pure."""

import signal

# The exit status of a worker that ended itself because it hung.
HUNG = 70

_SIGNALS = {int(number): number.name for number in signal.Signals}
# Signals by which others end a process. They do not implicate the requests in flight.
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def describe_exit(code: int | None) -> str:
    """How a process ended, from its `Process.returncode`."""
    if code is not None and code < 0:
        return f"signal {_SIGNALS.get(-code, -code)}"
    return "hung" if code == HUNG else f"exit code {code}"
