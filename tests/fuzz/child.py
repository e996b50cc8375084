"""The process that fuzzes one target, since what it runs may end it.

    python -m tests.fuzz.child images --folder /tmp/images --runs 1000 --engine mutation

`fuzz` looks for inputs that reach more code, and keeps them in the folder's corpus; `replay` runs
the corpus again and again, for what memory and time each execution takes by itself.
"""

import argparse
import contextlib
import gc
import importlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import mutation
from tests.fuzz.target import MODULES, Target, cases, target
from tests.fuzz.watch import Alarms, Watch, rss_bytes

TELL_S = 1.0
# One in so many inputs of a target of its own mutator is left to the changes of bytes.
_PLAIN = 12
# Memory is looked at so often in a replay.
_SAMPLED = 200
# Of the first replays caches fill.
_WARM_UP = 0.3


@dataclass(slots=True)
class Progress:
    """What the parent reads while this process runs, and after it."""

    target: str
    mode: str
    executions: int = 0
    seconds: float = 0.0
    corpus: int = 0
    rss_first_bytes: int = 0
    rss_last_bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False


class Session:
    """One run of a target: opens its door, and anew when it is time."""

    def __init__(self, of: Target, folder: Path, mode: str, runs: int, seconds: float) -> None:
        self.target = of
        # Which may take long to make, once. Findings of an earlier run are among them.
        retried = sorted((folder / "retry").glob("*.bin"))
        self.seeds = [*seeds_of(of), *(file.read_bytes() for file in retried)]
        self.folder = folder
        self._runs, self._until = runs, time.monotonic() + seconds
        self._began = self._told = time.monotonic()
        self._alarms = Alarms(of.says)
        self._alarms.__enter__()  # to the end of the process
        self._scratch = Path(tempfile.mkdtemp(prefix="yolopool-fuzz-", dir=_memory()))
        self._opened = 0
        self.watch = Watch(of, self._open(), folder, self._alarms)
        self.progress = Progress(of.name, mode)
        self.samples: list[int] = []

    def _open(self) -> Any:
        self._opened += 1
        folder = self._scratch / str(self._opened)
        folder.mkdir()
        door = self.target.open(folder)
        # What a door's event loop finds in tasks that nobody waits for.
        if (loop := getattr(door, "loop", None)) is not None:
            loop.set_exception_handler(self._alarms.of_loop)
        return door

    @property
    def is_over(self) -> bool:
        return self.watch.executions >= self._runs or time.monotonic() >= self._until

    def run(self, data: bytes) -> str:
        outcome = self.watch.run(data)
        after = self.target.reopen_after
        if after and self.watch.executions % after == 0:
            self.watch.door.close()
            shutil.rmtree(self._scratch / str(self._opened), ignore_errors=True)
            gc.collect()
            self.watch.door = self._open()
        if self.watch.executions % _SAMPLED == 0:
            gc.collect()
            self.samples.append(rss_bytes())
        if time.monotonic() - self._told > TELL_S:
            self.tell()
        return outcome

    def tell(self, finished: bool = False) -> None:
        self._told = time.monotonic()
        progress = self.progress
        progress.executions, progress.finished = self.watch.executions, finished
        progress.seconds = self._told - self._began
        progress.corpus = sum(1 for _ in (self.folder / "corpus").iterdir())
        progress.outcomes = dict(self.watch.outcomes.most_common(40))
        progress.slowest = [asdict(slow) for slow in self.watch.slowest]
        if self.samples:
            steady = self.samples[int(len(self.samples) * _WARM_UP) :]
            quarter = max(1, len(steady) // 4)
            progress.rss_first_bytes = sorted(steady[:quarter])[quarter // 2]
            progress.rss_last_bytes = sorted(steady[-quarter:])[quarter // 2]
        part = self.folder / f"{progress.mode}.part"
        part.write_text(json.dumps(asdict(progress)))
        part.rename(self.folder / f"{progress.mode}.json")

    def end(self) -> None:
        """Ends the process: libFuzzer's loop has no other end from within."""
        with contextlib.suppress(Exception):
            self.watch.door.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self.tell(finished=True)
        sys.stderr.flush()
        os._exit(0)


def mutated(of: Target, data: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
    """An input changed as its target wants it, and now and then as bytes."""
    if of.mutate is None or rng.randrange(_PLAIN) == 0:
        return mutation.of_bytes(data, rng, seeds, of.words, of.max_bytes)
    return of.mutate(data, rng, seeds)[: of.max_bytes]


def seeds_of(of: Target) -> list[bytes]:
    """What every session begins with: the seeds, and what was a finding once."""
    return [seed[: of.max_bytes] for seed in (*of.seeds(), *cases(of.name).values())]


def by_mutation(session: Session, seed: int) -> None:
    """Without coverage: changes what there is, and keeps an input that had another outcome."""
    of, rng, seeds = session.target, Random(seed), session.seeds
    corpus = [
        *seeds,
        *(file.read_bytes() for file in sorted((session.folder / "corpus").iterdir())),
    ]
    known: set[str] = set()
    for data in corpus:
        known.add(session.run(data))
    while not session.is_over:
        data = mutated(of, rng.choice(corpus), rng, seeds)
        outcome = session.run(data)
        if outcome not in known:
            known.add(outcome)
            corpus.append(data)
            (session.folder / "corpus" / f"new-{len(corpus)}").write_bytes(data)


def by_coverage(session: Session, seed: int) -> None:
    """With libFuzzer, by atheris: inputs that reach other code are changed further."""
    import atheris

    of, corpus, seeds = session.target, session.folder / "corpus", session.seeds
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number:04}").write_bytes(data)
    words = session.folder / "words"
    words.write_text("\n".join(f'"{_quoted(word)}"' for word in of.words if word))

    def one_input(data: bytes) -> None:
        session.run(data)
        if session.is_over:
            session.end()

    def change(data: bytes, most_bytes: int, number: int) -> bytes:
        rng = Random(number)
        if rng.randrange(_PLAIN) == 0:
            return bytes(atheris.Mutate(data, most_bytes))
        return mutated(of, data, rng, seeds)[:most_bytes]

    flags = (
        f"-seed={seed}", f"-max_len={of.max_bytes}", "-len_control=0", "-rss_limit_mb=0",
        "-timeout=120", "-verbosity=0", f"-artifact_prefix={session.folder}/",
        *([f"-dict={words}"] if of.words else []),
    )  # fmt: skip
    more = {"custom_mutator": change} if of.mutate is not None else {}
    atheris.Setup([sys.argv[0], str(corpus), *flags], atheris.instrument_func(one_input), **more)
    atheris.Fuzz()


def replay(session: Session) -> None:
    """The corpus and the slowest inputs, round after round."""
    folders = ("corpus", "slow")
    files = [file for name in folders for file in sorted((session.folder / name).glob("*"))]
    inputs = [*session.seeds, *(file.read_bytes() for file in files)]
    for data in itertools.cycle(inputs):
        if session.is_over:
            return
        session.run(data)


def _quoted(word: bytes) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word
    )


def _memory() -> str | None:
    """A folder in memory, for files that are written a million times."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def loaded(name: str, engine: str) -> Target:
    """The target, its modules watched for coverage where the engine wants that."""
    if engine != "atheris":
        return target(name)
    import atheris

    # Which packages only the target knows; those of ours are enough to find it.
    ours = ["yolopool", "control_plane", "worker", "importer"]
    more = [
        "starlette",
        "fastapi",
        "python_multipart",
        "uvicorn",
        "astral",
        "cronsim",
        "google",
        "zipfile",
    ]
    with atheris.instrument_imports(include=ours + more):
        importlib.import_module(f"tests.fuzz.doors.{MODULES[name]}")
    return target(name)


def prepare() -> None:
    """What libraries look for at their import, as an importer's child and a worker have it."""
    own = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "1",
           "YOLO_VERBOSE": "false", "OMP_NUM_THREADS": "1", "NNCF_CI": "1",
           "OPENCV_IO_MAX_IMAGE_PIXELS": "100000000"}  # fmt: skip
    os.environ |= own
    os.environ.setdefault(
        "YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolopool-fuzz-", dir=_memory())
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.fuzz.child", description=__doc__)
    parser.add_argument("target", choices=MODULES)
    parser.add_argument("--folder", type=Path, required=True, help="of the corpus and the findings")
    parser.add_argument("--mode", choices=("fuzz", "replay"), default="fuzz")
    parser.add_argument("--engine", choices=("atheris", "mutation"), default="mutation")
    parser.add_argument("--runs", type=int, default=1_000_000_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    (options.folder / "corpus").mkdir(parents=True, exist_ok=True)
    prepare()
    engine = "mutation" if options.mode == "replay" else options.engine
    of = loaded(options.target, engine)
    session = Session(of, options.folder, options.mode, options.runs, options.seconds)
    session.tell()
    ways: dict[str, Callable[[], None]] = {
        "replay": lambda: replay(session),
        "atheris": lambda: by_coverage(session, options.seed),
        "mutation": lambda: by_mutation(session, options.seed),
    }
    ways["replay" if options.mode == "replay" else engine]()
    session.end()


if __name__ == "__main__":
    main()
