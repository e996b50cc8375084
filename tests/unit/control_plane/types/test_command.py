"""Commands: what a log line says, and the error that a blocked want becomes."""

from control_plane.types.command import Assign, Blocked, DropWant, KeepPrefetched, Release
from tests.unit.control_plane.fleets import key
from yolopool import errors

A = key("team/shapes", 3)


def test_a_command_is_one_line() -> None:
    commands = [
        Assign("w1", A, False, "it fits"),
        Assign("w1", A, False, "there is room", prefetch=True),
        Release("w1", A, "nobody wants it"),
        Blocked(A, "NO_WORKER", "no worker is connected"),
        DropWant(A, "it failed to load"),
        KeepPrefetched(A),
    ]
    assert [str(command) for command in commands] == [
        "assign team/shapes@3 to w1: it fits",
        "prefetch team/shapes@3 to w1: there is room",
        "release team/shapes@3 from w1: nobody wants it",
        "blocked team/shapes@3: NO_WORKER: no worker is connected",
        "drop want of team/shapes@3: it failed to load",
        "keep team/shapes@3: it was prefetched and is in use",
    ]


def test_a_blocked_want_is_the_error_of_its_reason() -> None:
    error = Blocked(A, "LEDGER_FULL", "in use", retry_after_s=2.0).as_error()
    assert isinstance(error, errors.LedgerFull)
    assert (error.message, error.retry_after_s) == ("in use", 2.0)
