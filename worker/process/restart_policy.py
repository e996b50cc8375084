"""When a process that ended is started again: exponential back-off. Pure."""

from dataclasses import dataclass

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# A process that ran for so long is not one that can't start.
STEADY_S = 60.0


@dataclass(frozen=True, slots=True)
class Restart:
    """When to start again: after `delay_s`, as attempt number `attempt` in a row."""

    attempt: int
    delay_s: float


def after_exit(attempt: int, ran_s: float) -> Restart:
    """Decides on a process that was started as `attempt` (0: the first) and ran for `ran_s`.

    Delays double from half a second to half a minute; one that ran for a minute begins anew.
    """
    failures = 0 if ran_s >= STEADY_S else attempt
    # The exponent is bounded, so that years of failures make no float overflow.
    return Restart(failures + 1, min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 16)))
