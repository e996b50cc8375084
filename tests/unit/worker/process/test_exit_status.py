"""What an exit status says: how the process ended, and whether requests in flight are suspect."""

import signal

import pytest

from worker.process.exit_status import DEVICE_FAILED, HUNG, STARVED, describe_exit, implicates


@pytest.mark.parametrize(
    ("code", "said", "implicated"),
    [
        (0, "exit code 0", True),
        (None, "exit code None", True),
        (1, "exit code 1", True),
        (HUNG, "hung", True),
        (STARVED, "hung, starved of processor time", False),
        (DEVICE_FAILED, "its device failed", True),
        (-signal.SIGSEGV, "signal SIGSEGV", True),
        (-signal.SIGABRT, "signal SIGABRT", True),
        (-signal.SIGKILL, "signal SIGKILL", False),
        (-signal.SIGTERM, "signal SIGTERM", False),
    ],
)
def test_an_exit_is_described_and_may_implicate(
    code: int | None, said: str, implicated: bool
) -> None:
    assert describe_exit(code) == said
    assert implicates(code) == implicated
