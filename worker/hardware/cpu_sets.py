"""CPU sets as `--devices` names them: cpu:0-3 is one worker bound to four cores, cpu:2x4 two
workers of four each. Pure: the available cores are an argument.
"""

import re
from collections.abc import Sequence

from yolopool.errors import InvalidOption

_COUNTS = re.compile(r"(\d{1,4})x(\d{1,4})")
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def parse(text: str) -> tuple[int, ...]:
    """The cores in `0-3`, `5` or `0-3+8-11`, ascending. Raises InvalidOption for anything else."""
    found: set[int] = set()
    for part in text.split("+"):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise InvalidOption(f"{text!r} names no cores: give 0-3, 5, 0-3+8-11, or 2x4")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def text_of(cores: Sequence[int]) -> str:
    """The text that `parse` reads as these cores, which ascend."""
    ranges: list[list[int]] = []
    for core in cores:
        if ranges and core == ranges[-1][-1] + 1:
            ranges[-1].append(core)
        else:
            ranges.append([core])
    return "+".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in ranges)


def sets(text: str, allowed: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The sets of cores that `text` means, one for each worker. `2x4` is two sets of four from
    `allowed`, in its order, so that neighbours, mostly of one socket, stay together.

    Raises InvalidOption for cores that are not allowed, and lists those that are.
    """
    counts = _COUNTS.fullmatch(text)
    usable = f"this process may use {len(allowed)}: {text_of(allowed)}"
    if counts is None:
        cores = parse(text)
        if not set(cores) <= set(allowed):
            raise InvalidOption(f"cpu:{text} names cores that are not there: {usable}")
        return (cores,)
    workers, each = int(counts[1]), int(counts[2])
    if not 0 < workers * each <= len(allowed):
        raise InvalidOption(f"cpu:{text} needs {workers * each} cores, one at least: {usable}")
    return tuple(tuple(allowed[n * each : (n + 1) * each]) for n in range(workers))
