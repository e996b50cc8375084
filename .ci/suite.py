"""Runs pytest; the arguments are its own. Up to three tests that failed are run again, alone.

Tests about starved processors and killed processes need a machine that does nothing else; beside
another test, on two cores, one may fail by what that takes. A test that fails again fails the run,
and one that passes is named. Standard library only.
"""

import json
import subprocess
import sys
from pathlib import Path

MOST = 3
FAILED = Path(".pytest_cache/v/cache/lastfailed")


def pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def main(parallel: list[str], arguments: list[str]) -> int:
    status = pytest(*parallel, *arguments)
    failed = json.loads(FAILED.read_text()) if status == 1 and FAILED.exists() else {}
    if not 0 < len(failed) <= MOST:
        return status
    sys.stdout.write("".join(f"run again, alone: {name}\n" for name in failed))
    sys.stdout.flush()
    return pytest("--last-failed", *arguments)


if __name__ == "__main__":
    workers, *rest = sys.argv[1:]
    sys.exit(main(["-n", workers, "--dist", "worksteal"], rest))
