"""An import's job that notes how long its steps take, in the folder of its job. As a program it is
a new interpreter, or, given a descriptor, the parent that forks it.
"""

import functools
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from importer import job, sandbox
from importer.processes import zygote

FILE = "times.json"
# What is timed, by the module and function where it is; those behind the libraries come later.
FIRST = {
    "sandbox entry": ((sandbox, "before_imports"), (sandbox, "after_imports")),
    "libraries": ((job, "_for_torch"),),
    "digest": ((job, "_check_digest"),),
}
LATER = {
    "load": ("checkpoint.load",),
    "rebuild, fuse and compare": ("checkpoint.rebuilt",),
    "self-test and cost": ("profile.probe", "profile.gflops", "tasks.check_answer"),
    "encode": ("skeleton_writer.write_skeleton",),
}
WRITE = ("write_weights", "write_manifest")
_seconds: dict[str, float] = {}


def main() -> int:
    """Runs the job; writes the seconds of each step, and when the job began (monotonic)."""
    began = time.monotonic()
    _seconds.clear()
    status = job.main()
    found = {
        "began": began,
        "ended": time.monotonic(),
        "cpu_s": time.process_time(),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "private_bytes": _private_bytes(),
        "steps": _seconds,
    }
    Path(FILE).write_text(json.dumps(found))
    return status


def install() -> None:
    """Puts a clock before each step."""
    for step, places in FIRST.items():
        for module, name in places:
            setattr(module, name, _timed(step, getattr(module, name)))
    imports: Callable[..., Any] = job._for_torch

    @functools.wraps(imports)
    def and_then(build: dict[str, str]) -> Any:
        encode = imports(build)
        _install_later()
        return encode

    job._for_torch = and_then


@functools.cache
def _install_later() -> None:
    for step, names in LATER.items():
        for name in names:
            module_name, _, function = name.partition(".")
            module = importlib.import_module(f"importer.torch_import.{module_name}")
            setattr(module, function, _timed(step, getattr(module, function)))
    writer = importlib.import_module("importer.pack_writer")
    for function in WRITE:
        setattr(writer, function, _timed("write", getattr(writer, function)))


def _timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **more)
        finally:
            _seconds[step] = _seconds.get(step, 0.0) + time.perf_counter() - began

    return timed


def _private_bytes() -> int:
    text = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split()[0]: int(line.split()[1]) for line in text}
    return (kib["Private_Clean:"] + kib["Private_Dirty:"]) * 1024


if __name__ == "__main__":
    os.environ.setdefault("YOLO_VERBOSE", "false")
    install()
    sys.exit(zygote.main(main) if len(sys.argv) > 1 else main())
