"""Code as a fault in a library lets it in: it tries what it should not reach, in a process that has
confined itself, and tells what it reached.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

# `given` is what the test says.
_OPENING = """
import json, os, socket, subprocess, sys
from pathlib import Path
given = json.loads(sys.argv[1])
"""
# `attempt` notes how an action ended: done, or by which error.
TOOLS = """
found = {}
def attempt(name, action):
    try:
        action()
        found[name] = "done"
    except Exception as error:
        found[name] = type(error).__name__
def made(path):
    path.write_text("x")
    path.unlink()
"""


def run(
    code: str,
    given: Mapping[str, Any],
    program: str = sys.executable,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """What the code prints last, as JSON. It may use `name` of `given` for a file that no other
    test makes.
    """
    order = {"name": f"yolopool-escape-{os.getpid()}", **given}
    done = subprocess.run(
        [program, "-c", _OPENING + TOOLS + code, json.dumps(order)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environ or {})},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
