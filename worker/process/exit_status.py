"""What an exit status says about how a process ended. Pure."""

import signal

# The exit statuses of a worker that ended itself because it hung: by its own fault, or on a host
# that left it hardly any processor time.
HUNG, STARVED = 70, 71

_SIGNALS = {int(number): number.name for number in signal.Signals}
_SAID = {HUNG: "hung", STARVED: "hung, starved of processor time"}
# Signals by which others end a process.
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def describe_exit(code: int | None) -> str:
    """How a process ended, from its `Process.returncode`: `exit code 1`, `signal SIGSEGV`."""
    if code is not None and code < 0:
        return f"signal {_SIGNALS.get(-code, -code)}"
    return _SAID.get(code or 0, f"exit code {code}")


def implicates(code: int | None) -> bool:
    """Whether the requests in flight may have caused the exit."""
    code = code or 0
    return code != STARVED and -code not in _FROM_OUTSIDE
