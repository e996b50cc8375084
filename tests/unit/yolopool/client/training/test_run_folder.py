"""What a training left beside its model file goes along, and fits."""

from pathlib import Path

import pytest

from yolopool.client.training.run_folder import arguments_in, find, last_row, thinned
from yolopool.errors import ArtifactNotFound
from yolopool.vocabulary import MAX_METADATA_BYTES

ARGS = "task: detect\nmode: train\ndata: 'bolts.yaml'\nepochs: 3\nlr0: 0.01\nfreeze: null\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.pt").touch()
    (tmp_path / "args.yaml").write_text(ARGS)
    (tmp_path / "results.csv").write_text("epoch,x\n1,2\n")
    return tmp_path


def test_each_way_to_name_a_training(run: Path) -> None:
    ways = [run, run / "weights", run / "weights" / "best.pt"]
    for found in map(find, ways):
        assert found.file == run / "weights" / "best.pt"
        assert found.metadata == {"args.yaml": ARGS, "results.csv": "epoch,x\n1,2\n"}
        assert found.arguments["data"] == "bolts.yaml"


def test_what_is_no_trainings_says_nothing(run: Path) -> None:
    (run / "args.yaml").write_text("name: some\nother: tool\n")
    assert (find(run).metadata, find(run).arguments) == ({}, {})
    assert find(run / "none.pt").file == run / "none.pt"


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound, match=r"weights/best\.pt"):
        find(tmp_path)


def test_long_results_lose_rows_and_not_their_ends(run: Path) -> None:
    rows = [f"{epoch},{'0.12345,' * 14}" for epoch in range(1, 1001)]
    text = "\n".join(["epoch,x", *rows]) + "\n"
    kept = thinned(text, 20_000).splitlines()
    assert len("\n".join(kept)) <= 20_000
    assert (kept[0], kept[1], kept[-1]) == ("epoch,x", rows[0], rows[-1])
    assert len(kept) > 100
    (run / "results.csv").write_text(text)
    (run / "args.yaml").write_text(ARGS + "x: \N{SNOWMAN}\n" * 20_000)
    held = find(run).metadata
    assert sum(len(name) + len(one.encode()) for name, one in held.items()) <= MAX_METADATA_BYTES


def test_arguments_are_single_values() -> None:
    assert arguments_in("a: 1\nb: 'x y'\nc:\n  d: 2\n# e: 3\n") == {"a": "1", "b": "x y"}


def test_the_last_epoch() -> None:
    assert last_row("epoch, mAP\n1, 0.5\n2, 0.75\n") == {"epoch": "2", "mAP": "0.75"}
    assert last_row("") == last_row("epoch\n") == {}
