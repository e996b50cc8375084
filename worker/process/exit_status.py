"""What an exit status says about how a process ended. Pure."""

import signal
from collections.abc import Sequence

# The exit statuses of a worker that ended itself because it hung: by its own fault, or on a host
# that left it hardly any processor time; and because its device can't compute any more.
HUNG, STARVED, DEVICE_FAILED = 70, 71, 72
# Of one that could not take its device at its start.
NOT_TAKEN = 73
# Of a supervisor none of whose devices can be used: EX_UNAVAILABLE of sysexits.h. Whoever started
# it should give it another machine, or another container.
DEVICES_LOST = 69

_SIGNALS = {int(number): number.name for number in signal.Signals}
_SAID = {
    HUNG: "hung",
    STARVED: "hung, starved of processor time",
    DEVICE_FAILED: "its device failed",
    NOT_TAKEN: "its device can't be taken",
}
# Signals by which others end a process.
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def describe_exit(code: int | None) -> str:
    """How a process ended, from its `Process.returncode`: `exit code 1`, `signal SIGSEGV`."""
    if code is not None and code < 0:
        return f"signal {_SIGNALS.get(-code, -code)}"
    return _SAID.get(code or 0, f"exit code {code}")


def tells_of_device(code: int | None, requests: Sequence[str]) -> bool:
    """Whether a process ended since its device is of no use; `requests`: those in flight, of which
    one may have been the cause.
    """
    return code == NOT_TAKEN or (code == DEVICE_FAILED and not requests)


def implicates(code: int | None) -> bool:
    """Whether the requests in flight may have caused the exit."""
    code = code or 0
    return code != STARVED and -code not in _FROM_OUTSIDE
