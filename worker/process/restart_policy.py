"""When a process that ended is restarted: exponential back-off. Pure."""

from dataclasses import dataclass

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
# A process that ran for so long started well, so its exit counts as a first failure.
STEADY_S = 60.0
# A device of which so many processes in a row say that it is of no use is lost.
STARTS = 5


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart after `delay_s`, as attempt number `attempt` in a row."""

    attempt: int
    delay_s: float


def after_exit(attempt: int, ran_s: float) -> Restart:
    """Decides when to restart a process that was started as `attempt` (0: the first).

    Delays double from half a second to half a minute. After a run of a minute they start anew.
    """
    failures = 0 if ran_s >= STEADY_S else attempt
    # The exponent is bounded, so that years of failures do not overflow a float.
    return Restart(failures + 1, min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 16)))
