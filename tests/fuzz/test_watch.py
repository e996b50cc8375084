"""The watch itself: what it takes for a finding."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import structlog

from tests.fuzz import mutation
from tests.fuzz.target import Target
from tests.fuzz.watch import Alarms, Note, Watch, noted

log = structlog.get_logger()


class Broken:
    """A door with faults."""

    def run(self, data: bytes) -> str:
        match data:
            case b"raise":
                raise ZeroDivisionError("of no documented type")
            case b"log":
                log.error("unexpected error", exc_info=KeyError("inside"))
            case b"library":
                logging.getLogger("a.library").error("went wrong")
            case b"quiet":
                log.warning("said, and no fault")
        return "ok"

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("data", "kind"), [(b"raise", "exception"), (b"log", "log"), (b"library", "log")]
)
def test_faults_are_findings_with_their_input(data: bytes, kind: str, tmp_path: Path) -> None:
    with Alarms() as alarms:
        broken = Broken()
        of = Target(
            name="broken", about="", open=lambda folder: broken, seeds=lambda: [b""], share=1
        )
        watch = Watch(of, broken, tmp_path, alarms)
        assert watch.run(b"quiet") == "ok"
        assert watch.run(data) == "finding"
    (found,) = (tmp_path / "findings").glob(f"{kind}-*.bin")
    assert found.read_bytes() == data


def test_the_input_of_a_process_that_died_is_known(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from tests.fuzz.watch import Note;"
        f"note = Note(Path({str(tmp_path / 'current')!r})); note.write(b'first'); note.done();"
        "note.write(b'deadly'); os.kill(os.getpid(), 11)"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    died = subprocess.run([sys.executable, "-c", code], check=False, env=env)
    assert died.returncode == -11
    found = noted(tmp_path / "current")
    assert found is not None
    assert found[1] == b"deadly"


def test_what_has_ended_is_not_noted(tmp_path: Path) -> None:
    note = Note(tmp_path / "current")
    note.write(b"x")
    note.done()
    assert noted(tmp_path / "current") is None


def test_a_seed_always_makes_the_same_changes() -> None:
    seeds = [b'{"a": [1, 2.5, "x"]}', b"\xff\xd8\xff" + bytes(64)]
    made = [
        [mutation.of_bytes(seed, rng, seeds, (b"word",), 1000) for seed in seeds for _ in range(50)]
        + [mutation.of_json(seeds[0], rng, ("a", "b")) for _ in range(50)]
        for rng in (Random(3), Random(3), Random(4))
    ]
    assert made[0] == made[1] != made[2]
    assert len(set(made[0])) > 75
    assert all(len(one) <= 1000 for one in made[0][:100])
