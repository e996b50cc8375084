"""Inputs that once were findings, and some hundreds of new ones for each door.

`make fuzz` looks further. The inputs of a day differ from those of the day before: see
tests/matrix.py.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.child import mutated, seeds_of
from tests.fuzz.target import MODULES, Target, cases, target
from tests.fuzz.watch import Alarms, Watch
from tests.matrix import examples


class Opened:
    """A target with its door open."""

    def __init__(self, of: Target, folder: Path, alarms: Alarms) -> None:
        self.target = of
        (folder / "door").mkdir()
        self.door = of.open(folder / "door")
        if (loop := getattr(self.door, "loop", None)) is not None:
            loop.set_exception_handler(alarms.of_loop)
        self._watch = Watch(of, self.door, folder, alarms)
        self._findings = folder / "findings"

    def run(self, data: bytes) -> None:
        if self._watch.run(data) == "finding":
            (last, *_) = sorted(
                self._findings.glob("*.json"), key=lambda file: -file.stat().st_mtime
            )
            pytest.fail(f"{self.target.name}: {data!r}\n{last.read_text()}")


@pytest.fixture(scope="module", params=MODULES)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    of = target(request.param)
    with Alarms(of.says) as alarms:
        found = Opened(of, tmp_path_factory.mktemp(request.param), alarms)
        yield found
        found.door.close()


def test_what_was_a_finding_is_none(opened: Opened) -> None:
    for data in cases(opened.target.name).values():
        opened.run(data)


def test_any_input_has_a_documented_answer(opened: Opened) -> None:
    of = opened.target
    seeds = seeds_of(of)
    for data in seeds[: of.examples]:
        opened.run(data)

    count = examples(5 * of.examples, sample=of.examples)

    @settings(count, suppress_health_check=[HealthCheck.too_slow])
    @given(number=st.integers(0, 2**32 - 1))
    def holds(number: int) -> None:
        rng = Random(number)
        opened.run(mutated(of, rng.choice(seeds), rng, seeds))

    holds()
