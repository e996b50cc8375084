"""`yolopool detect` on folders, videos, streams and stdin, and the forms that it writes."""

import csv
import io
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.contract.cli.command_line import CLI, environment, yolopool
from tests.contract.client.cameras import RATE, SIZE, Camera, write_video
from tests.contract.scripted_pool import NO_IMAGE, ScriptedPool
from yolopool.client.media.sources import sources_of
from yolopool.client.media.video_reader import VideoReader

DETECT = ("detect", "--model", "shapes")
FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, FRAMES)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.new("RGB", (160, 120)).save(tmp_path / "photos" / f"{number:02}.jpg")
    (tmp_path / "photos" / "05.jpg").write_bytes(NO_IMAGE)
    return tmp_path / "photos"


def frames_of(path: Path) -> tuple[Any, list[Any]]:
    reader = VideoReader(sources_of(path)[0])
    frames = list(reader.frames())
    reader.close()
    return reader.video, frames


def test_a_folder_is_a_line_an_image(pool: ScriptedPool, folder: Path) -> None:
    done = yolopool(pool, *DETECT, folder, "--concurrency", "3")
    assert done.returncode == 4
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert lines[0] == f"{folder / '00.jpg'}: 1 square, 1 circle, 20.0 ms"
    assert f"error IMAGE_NOT_DECODABLE: {folder / '05.jpg'}: no luck" in done.stderr
    assert "12 images in" in done.stderr


def test_every_form_in_a_folder(pool: ScriptedPool, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    forms = [word for form in ("images", "yolo", "csv", "jsonl", "coco") for word in ("--as", form)]
    done = yolopool(pool, *DETECT, folder, "--save", out, *forms)
    assert "saved 11 pictures" in done.stderr
    kept = [f"{number:02}" for number in range(12) if number != 5]
    assert sorted(path.stem for path in out.glob("*.jpg")) == kept
    assert sorted(path.stem for path in out.glob("labels/*.txt")) == kept
    assert (out / "labels" / "00.txt").read_text() == (
        "1 0.375 0.458333 0.625 0.583333\n0 0.375 0.458333 0.625 0.583333\n"
    )
    rows = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    assert len(rows) == 22
    assert (rows[0]["path"], rows[0]["class_name"]) == (str(folder / "00.jpg"), "square")
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line.get("error", {}).get("reason") for line in lines[4:7]] == [
        None, "IMAGE_NOT_DECODABLE", None,
    ]  # fmt: skip
    coco = json.loads((out / "coco.json").read_text())
    assert (len(coco["images"]), len(coco["annotations"])) == (11, 22)
    assert coco["categories"] == [{"id": 0, "name": "circle"}, {"id": 1, "name": "square"}]
    assert coco["annotations"][0]["bbox"] == [10, 20, 100, 70]


def test_a_video_drawn_has_its_rate_and_size(
    pool: ScriptedPool, clip: Path, tmp_path: Path
) -> None:
    done = yolopool(pool, *DETECT, clip, "--save", tmp_path / "drawn.mp4", "--track")
    assert done.returncode == 0, done.stderr
    assert f"{FRAMES} square, {FRAMES} circle" in " ".join(done.stdout.split())
    video, frames = frames_of(tmp_path / "drawn.mp4")
    assert (video.size, int(video.rate), len(frames)) == (SIZE, RATE, FRAMES)
    assert list(tmp_path.iterdir()) == [tmp_path / "drawn.mp4"]
    for before, after in zip(frames_of(clip)[1], frames, strict=True):
        changed = np.abs(before.pixels.astype(int) - after.pixels.astype(int)).max(axis=2)
        assert changed[80, 9:13].max() > 40  # the left edge of the box
        assert changed[100:, 120:].max() < 40


def test_frames_as_pictures_and_labels(pool: ScriptedPool, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = yolopool(pool, *DETECT, clip, "--save", out, "--as", "images", "--as", "yolo", "--track")
    assert done.returncode == 0, done.stderr
    assert len(list((out / "clip").glob("*.jpg"))) == FRAMES
    assert (out / "clip" / "000001.jpg").exists()
    names = sorted((out / "labels").iterdir(), key=lambda path: int(path.stem.rpartition("_")[2]))
    assert [path.name for path in names] == [f"clip_{n}.txt" for n in range(1, FRAMES + 1)]
    # The line ends in the number of the object.
    assert len(names[-1].read_text().splitlines()[0].split()) == 6


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_stdout_belongs_to_one_form(pool: ScriptedPool, clip: Path, image: Path, form: str) -> None:
    done = yolopool(pool, *DETECT, image, clip, "--save", "-", "--as", form)
    assert done.returncode == 0, done.stderr
    if form == "jsonl":
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row.get("frame") for row in rows] == [None, *range(FRAMES)]
    else:
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["frame"] for row in rows[:3]] == ["", "", "0"]
        assert len(rows) == 2 * (FRAMES + 1)


def test_an_image_on_stdin(pool: ScriptedPool, image: Path) -> None:
    own = os.environ | environment(pool)
    with image.open("rb") as file:
        done = subprocess.run(
            [*CLI, *DETECT, "-", "--json"], stdin=file, env=own, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["path"] == "-"
    assert pool.script.last("Detect").encoded == image.read_bytes()


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(
    pool: ScriptedPool, clip: Path
) -> None:
    own = os.environ | environment(pool)
    command = [*CLI, *DETECT, str(clip), "--save", "-", "--as", "jsonl"]
    process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, b"")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-", "-"], "once"),
        (["none/*.jpg"], "no images and no videos"),
        (["x.jpg", "--json", "--save", "-", "--as", "csv"], "leave one out"),
        (["x.jpg", "--as", "csv"], "--save FOLDER"),
        (["clip.mp4", "--jpeg-quality", "0"], "1 to 100"),
        (["x.jpg", "--concurrency", "0"], "calls in flight"),
        (["none.mp4"], "none.mp4"),
    ],
)
def test_what_can_not_be_asked(pool: ScriptedPool, words: list[str], said: str) -> None:
    done = yolopool(pool, *DETECT, *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1), done.stderr
    assert said in done.stderr
    assert pool.script.calls == []


def test_a_bad_video_loses_no_image(pool: ScriptedPool, image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    done = yolopool(pool, *DETECT, bad, image)
    assert done.returncode == 4
    assert f"error VIDEO_NOT_READABLE: {bad}" in done.stderr
    assert "0.900" in done.stdout


def test_two_cameras_at_once_until_ctrl_c(pool: ScriptedPool, tmp_path: Path) -> None:
    cameras = Camera(), Camera()
    own = os.environ | environment(pool) | {"PYTHONUNBUFFERED": "1"}
    sources = [cameras[0].http, cameras[1].rtsp]
    command = [*CLI, *DETECT, *sources, "--save", str(tmp_path), "--as", "jsonl", "--as", "video"]
    process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = tmp_path / "results.jsonl"
    until = time.monotonic() + 60
    paths: set[str] = set()
    while len(paths) < 2 and time.monotonic() < until:
        time.sleep(0.05)
        text = lines.read_text() if lines.exists() else ""
        paths = {json.loads(line)["path"] for line in text.splitlines()[:-1]}
    process.send_signal(2)
    out, err = process.communicate(timeout=60)
    for camera in cameras:
        camera.close()
    assert process.returncode == 0, err
    assert len(paths) == 2
    assert not any("secret" in path for path in paths)
    assert b"RECONNECTS" in out
    videos = list(tmp_path.glob("*.mp4"))
    assert len(videos) == 2
    for path in videos:
        assert frames_of(path)[0].size == SIZE
