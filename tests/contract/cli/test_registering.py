"""`models register`: a file is enough, a training's folder too, and some classes may be renamed."""

from pathlib import Path

import pytest

from tests.contract.cli.command_line import yolopool
from tests.contract.scripted_pool import ScriptedPool

ARGS = """task: detect
mode: train
model: yolov8n.yaml
data: /home/me/bolts/data.yaml
epochs: 100
name: train3
"""
RESULTS = "epoch, metrics/mAP50(B)\n1,0.5\n2,0.75\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training."""
    folder = tmp_path / "runs" / "detect" / "train3"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "best.pt").write_bytes(b"weights")
    (folder / "args.yaml").write_text(ARGS)
    (folder / "results.csv").write_text(RESULTS)
    return folder


def test_a_trainings_folder_is_enough(pool: ScriptedPool, run: Path) -> None:
    done = yolopool(pool, "models", "register", run)
    assert done.returncode == 0, done.stderr
    assert "name: bolts (from data in args.yaml; --name gives another)" in done.stderr
    sent = pool.script.last("RegisterModel")
    assert (sent.name, sent.source_name) == ("bolts", "best.pt")
    assert dict(sent.metadata) == {"args.yaml": ARGS, "results.csv": RESULTS}
    assert pool.script.stored == b"weights"


def test_so_is_its_file(pool: ScriptedPool, run: Path) -> None:
    done = yolopool(pool, "models", "register", run / "weights" / "best.pt", "--name", "team/nuts")
    assert done.returncode == 0, done.stderr
    assert "name:" not in done.stderr
    sent = pool.script.last("RegisterModel")
    assert (sent.name, sent.metadata["args.yaml"]) == ("team/nuts", ARGS)


def test_a_file_with_a_name_of_its_own(pool: ScriptedPool, tmp_path: Path) -> None:
    path = tmp_path / "Bolts v2.pt"
    path.write_bytes(b"weights")
    done = yolopool(pool, "models", "register", path)
    assert done.returncode == 0, done.stderr
    assert "(from the file's name;" in done.stderr
    assert pool.script.last("RegisterModel").name == "bolts-v2"


def test_without_any_name_nothing_is_sent(
    pool: ScriptedPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / "best.pt").write_bytes(b"weights")
    done = yolopool(pool, "models", "register", tmp_path / "best.pt")
    assert done.returncode == 4
    assert "--name NAME" in done.stderr
    assert pool.script.calls == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["bolts", "none.pt"], 3, "no such file"),
        (["none.pt"], 3, "no such file"),
        (["."], 3, "weights/best.pt"),
        (["a", "b", "c.pt"], 4, "give one model file"),
        (["a", "c.pt", "--name", "b"], 4, "give one model file"),
        (["c.pt", "--names", "bolt,1=nut"], 4, "0=bolt,3=nut"),
    ],
)
def test_what_can_not_be_registered(
    pool: ScriptedPool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = yolopool(pool, "models", "register", *words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert pool.script.calls == []


def test_some_classes_are_renamed(pool: ScriptedPool, run: Path) -> None:
    done = yolopool(pool, "models", "register", run, "--names", "0=bolt, 3=hex nut")
    assert done.returncode == 0, done.stderr
    sent = pool.script.last("RegisterModel")
    assert dict(sent.renamed_classes) == {0: "bolt", 3: "hex nut"}
    assert list(sent.class_names) == []


def test_what_is_known_of_a_training_is_shown(pool: ScriptedPool) -> None:
    pool.script.metadata = {"args.yaml": ARGS, "results.csv": RESULTS}
    shown = yolopool(pool, "models", "show", "shapes").stdout
    for words in ("epochs 100", "data bolts.yaml", "metrics/mAP50(B) 0.75", "args.yaml ("):
        assert words in shown
    assert yolopool(pool, "models", "show", "shapes", "--text", "args.yaml").stdout == ARGS
    done = yolopool(pool, "models", "show", "shapes", "--text", "notes")
    assert (done.returncode, "it has args.yaml, results.csv" in done.stderr) == (4, True)


def test_a_uri_is_the_pools_to_fetch(pool: ScriptedPool) -> None:
    uri = "s3://models/best.pt"
    done = yolopool(
        pool, "models", "register", "parts", uri, "--sha256", "a" * 64, "--profile", "m"
    )
    assert done.returncode == 0, done.stderr
    sent = pool.script.last("RegisterModel")
    assert (sent.name, sent.uri, sent.artifact, sent.profile) == ("parts", uri, "a" * 64, "m")


def test_a_uri_needs_a_name_and_a_file_here_no_digest(pool: ScriptedPool, run: Path) -> None:
    asked = len(pool.script.calls)
    done = yolopool(pool, "models", "register", "s3://models/best.pt")
    assert done.returncode == 4
    assert "give a URI its model's name" in done.stderr
    assert yolopool(pool, "models", "register", run, "--sha256", "a" * 64).returncode == 4
    assert len(pool.script.calls) == asked


def test_watches_are_set_listed_and_removed(pool: ScriptedPool) -> None:
    done = yolopool(pool, "watches", "add", "team/parts", "s3://models/line7/", "--every-s", "60")
    assert done.returncode == 0, done.stderr
    sent = pool.script.last("SetWatch").watch
    assert (sent.name, sent.model, sent.every_s) == ("team.parts", "team/parts", 60)
    listed = yolopool(pool, "watches", "list")
    assert "line7" in listed.stdout
    assert "SOURCE_UNAVAILABLE" in listed.stdout
    assert yolopool(pool, "watches", "remove", "line7").returncode == 0
    assert yolopool(pool, "watches", "remove", "absent").returncode == 3
