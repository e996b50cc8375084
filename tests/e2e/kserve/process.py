"""A process of its own for tritonclient: it registers `package inference`, as the stubs of the
control plane do, and one process holds it once.
"""

import json
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any


class TritonProcess:
    """Runs functions of a module by name, one at a time; what they raise is an AssertionError."""

    def __init__(self, module: str = "tests.e2e.kserve.cases") -> None:
        self._module = module
        self._lock = threading.Lock()

    def __enter__(self) -> "TritonProcess":
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, function: str, **arguments: Any) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            process.stdin.write(json.dumps([function, arguments]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        assert line, "the process of tritonclient ended"
        answer = json.loads(line)
        assert not answer["error"], answer["error"]
        return answer["result"]
