"""Every command and snippet of the pages does what it says, against a real pool.

The blocks of a page are run in its order, in a folder with the files that pages speak of (see
`furnish`). The addresses that pages name are replaced by those of the pool of this test, and
nothing else. `tests/page_blocks.py` says which blocks are run, and how a page marks the others.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.client.cameras import write_video
from tests.labels import write_labels
from tests.matrix import is_full
from tests.models import SHAPES, Zoo
from tests.page_blocks import PYTHON, ROOT, Block, blocks_of_pages
from yolopool import Client
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
LIMIT_S = 120
PAGES = {
    page: run
    for page, blocks in blocks_of_pages().items()
    if (run := [block for block in blocks if block.is_run(is_full())])
}
# The first line of a block that is a file of the reader's; a command after it runs it.
FILE = re.compile(r"# (\w+\.py)\n")
COMMANDS = {
    "yolopool": f'exec {sys.executable} -c "from yolopool.cli.main import main; main()" "$@"',
    "python": f'exec {sys.executable} "$@"',
    "uvicorn": f'exec {sys.executable} -m uvicorn "$@"',
}
TRITON = """
platform: "onnxruntime_onnx"
max_batch_size: 4
input [ { name: "images" data_type: TYPE_UINT8 dims: [ 3, 320, 320 ] } ]
dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 500 }
response_cache { enable: true }
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    """A pool on this machine's CPU with the demo model, as `yolopool up` starts it."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="cpu")
        with LocalPool(options, lambda text: None) as running:
            with Client(running.address) as client:
                demo.register(client, demo.MAIN, demo.find().models[demo.MAIN])
            yield running


def furnish(folder: Path, zoo: Zoo) -> None:
    """The files that pages speak of as the reader's own."""
    for name in ("examples", "protos"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("images", "frames", "more_frames"):
        shutil.copytree(SHAPES / "images", folder / name, ignore=shutil.ignore_patterns("*.json"))
    write_labels(folder / "labels")
    shutil.copy(SHAPES / "models" / "shapes.pt", folder / "best.pt")
    Image.open(SHAPES / "images" / "00003.png").convert("RGB").save(folder / "street.jpg")
    write_video(folder / "clip.mp4", 12)
    run = folder / "runs" / "detect" / "train3"
    (run / "weights").mkdir(parents=True)
    shutil.copy(folder / "best.pt", run / "weights" / "best.pt")
    (run / "args.yaml").write_text("task: detect\nmode: train\ndata: bolts.yaml\nepochs: 9\n")
    (run / "results.csv").write_text("epoch,metrics/mAP50(B)\n9,0.9\n")
    repository = folder / "model_repository" / "street_yolo"
    (repository / "1").mkdir(parents=True)
    (repository / "1" / "model.onnx").symlink_to(zoo.graph("shapes"))
    (repository / "config.pbtxt").write_text(TRITON)
    for place in (folder / "bin", folder / ".venv" / "bin"):
        place.mkdir(parents=True)
        for name, line in COMMANDS.items():
            (place / name).write_text(f"#!/bin/sh\n{line}\n")
            (place / name).chmod(0o755)


class Session:
    """One page's reader: a folder, a shell for each block, one Python for all of them."""

    def __init__(self, folder: Path, pool: LocalPool) -> None:
        self.folder = folder
        self._names = {
            f"{host}:{port}": address
            for port, address in (("50051", pool.address), ("8080", pool.http))
            for host in ("127.0.0.1", "localhost")
        }
        self._environment = os.environ | {
            "HOME": str(folder),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "YOLOPOOL_ADDRESS": pool.address,
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }
        self._python: subprocess.Popen[str] | None = None

    def run(self, block: Block) -> str:
        """What failed, with what it printed; empty if it did what it says."""
        text = block.text
        for named, address in self._names.items():
            text = text.replace(named, address)
        if block.language != PYTHON:
            return self._shell(text)
        if (own := FILE.match(text)) is not None:
            compile(text, own[1], "exec")
            (self.folder / own[1]).write_text(text)
            return ""
        return self._paste(block, text)

    def _shell(self, text: str) -> str:
        # What a block leaves running would hold its output open, and outlive the page.
        whole = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{text}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", whole],
            cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=LIMIT_S,
        )  # fmt: skip
        return f"exit status {done.returncode}:\n{done.stdout}" if done.returncode else ""

    def _paste(self, block: Block, text: str) -> str:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-m", "tests.page_session"],
                cwd=self.folder, env=self._environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        # Lines of a traceback are those of the page.
        lines = "\n" * block.line + text
        self._python.stdin.write(json.dumps([block.page, lines]) + "\n")
        self._python.stdin.flush()
        answer = self._python.stdout.readline()
        assert answer, f"the Python of {block} ended with {self._python.wait()}"
        printed, failed = json.loads(answer)
        return f"{printed}{failed}" if failed else ""

    def close(self) -> None:
        if self._python is not None:
            self._python.communicate(timeout=LIMIT_S)


@contextmanager
def a_session(pool: LocalPool, zoo: Zoo) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="yp-page-") as folder:
        furnish(Path(folder), zoo)
        session = Session(Path(folder), pool)
        try:
            yield session
        finally:
            session.close()


def tidy_up(client: Client) -> None:
    """Ends what a page may set and the next one does not expect."""
    for alias in client.aliases():
        client.delete_alias(alias.name)
    for schedule in client.schedules():
        client.delete_schedule(schedule.name)
    for watch in client.watches():
        client.delete_watch(watch.name)
    for rule in client.rules():
        if rule.gate is not None:
            client.clear_gate(rule.pattern)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page: str, pool: LocalPool, zoo: Zoo) -> None:
    with a_session(pool, zoo) as session:
        for block in PAGES[page]:
            failed = session.run(block)
            assert not failed, f"{block}\n{block.text}\n{failed}"
    with Client(pool.address) as client:  # the next page finds what this one found
        tidy_up(client)
        assert client.detect(demo.find().images[0], model=demo.MAIN).model == "shapes@1"


def test_what_fails_is_seen(pool: LocalPool, zoo: Zoo) -> None:
    with a_session(pool, zoo) as session:
        wrong = Block(
            "p", 1, "sh", "yolopool detect street.jpg --model nothing\necho not reached\n"
        )
        assert "error MODEL_NOT_FOUND" in session.run(wrong)
        assert "not reached" not in session.run(wrong)
        assert session.run(Block("p", 1, PYTHON, "x = 1\n")) == ""
        assert 'File "p", line 8' in session.run(Block("p", 7, PYTHON, "y = x / 0\n"))
