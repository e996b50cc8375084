"""The command line against a real server: output for people and programs, and exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.scripted_pool import ScriptedPool
from yolopool.v1 import model_pb2, types_pb2

CLI = [sys.executable, "-c", "from yolopool.cli import main; main()"]


@pytest.fixture
def pool() -> Iterator[ScriptedPool]:
    with ScriptedPool() as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.new("RGB", (160, 120)).save(path)
    return path


def yolopool(pool: ScriptedPool | None, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    address = pool.address if pool is not None else "127.0.0.1:1"
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        env={**os.environ, "YOLOPOOL_ADDRESS": address, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_detect_for_people(pool: ScriptedPool, image: Path, tmp_path: Path) -> None:
    saved = tmp_path / "out.jpg"
    done = yolopool(pool, "detect", image, "--model", "shapes", "--save", saved)
    assert done.returncode == 0, done.stderr
    assert "square" in done.stdout
    assert "0.900" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    with Image.open(saved) as picture:
        assert picture.size == (160, 120)


def test_detect_for_programs(pool: ScriptedPool, image: Path) -> None:
    done = yolopool(pool, "detect", image, "--model", "shapes", "--conf", "0.4", "--json")
    (answer,) = json.loads(done.stdout)
    assert answer["detections"][0]["class_name"] == "square"
    assert pool.script.last("Detect").options.confidence == pytest.approx(0.4)


@pytest.mark.parametrize(
    "command",
    [
        ("models", "list"), ("models", "show", "shapes"), ("models", "load", "shapes"),
        ("models", "unload", "shapes"), ("models", "delete", "shapes"), ("workers", "list"),
        ("models", "residency", "shapes"), ("status",), ("schedules", "list"),
        ("changeover", "--load", "shapes", "--release", "old"),
        ("schedules", "set", "day", "--cron", "0 6 * * *", "--load", "shapes"),
    ],
)  # fmt: skip
def test_every_command_speaks_both_ways(pool: ScriptedPool, command: tuple[str, ...]) -> None:
    people, programs = yolopool(pool, *command), yolopool(pool, *command, "--json")
    assert people.returncode == 0, people.stderr
    assert people.stdout.strip()
    assert max(map(len, people.stdout.splitlines())) <= 80
    json.loads(programs.stdout)


def test_a_residency_keeps_what_is_not_said(pool: ScriptedPool) -> None:
    done = yolopool(pool, "models", "residency", "shapes", "--idle-s", "7")
    assert done.returncode == 0, done.stderr
    sent = pool.script.last("SetResidency").residency
    assert sent.mode == types_pb2.RESIDENCY_MODE_ON_DEMAND
    assert (sent.idle_release_s, sent.cpu_fallback) == (7, True)
    command = ("--mode", "hot-standby", "--no-cpu-fallback")
    done = yolopool(pool, "models", "residency", "shapes@1", *command)
    assert "hot-standby" in done.stdout
    sent = pool.script.last("SetResidency").residency
    assert sent.mode == types_pb2.RESIDENCY_MODE_HOT_STANDBY
    assert (sent.idle_release_s, sent.cpu_fallback) == (30, False)
    assert yolopool(pool, "models", "residency", "shapes", "--mode", "cold").returncode == 4


def test_a_changeover_names_both_sides(pool: ScriptedPool) -> None:
    sides = ("--load", "a", "--load", "b@2", "--release", "c", "--pin", "--replicas", "2")
    done = yolopool(pool, "changeover", *sides)
    assert done.returncode == 0, done.stderr
    assert "shapes@1" in done.stdout
    assert "old@2" in done.stdout
    sent = pool.script.last("Changeover")
    assert [(one.model, one.replicas, one.pin) for one in sent.prepare] == [
        ("a", 2, True),
        ("b@2", 2, True),
    ]
    assert list(sent.release) == ["c"]


def test_schedules_are_told_in_their_own_zone(pool: ScriptedPool) -> None:
    shown = yolopool(pool, "schedules", "list").stdout
    for words in ("Europe/Berlin", "06:00", "+0100", "+ shapes x2", "- old", "[now]"):
        assert words in shown
    command = ("set", "night", "--cron", "0 19 * * *", "--time-zone", "Europe/Berlin")
    done = yolopool(pool, "schedules", *command, "--lead", "600", "--load", "b", "--release", "a")
    assert done.returncode == 0, done.stderr
    sent = pool.script.last("SetSchedule").schedule
    assert (sent.name, sent.cron, sent.time_zone) == ("night", "0 19 * * *", "Europe/Berlin")
    assert (sent.lead_s, sent.change.prepare[0].model) == (600.0, "b")
    assert "deleted day" in yolopool(pool, "schedules", "delete", "day").stdout
    assert yolopool(pool, "schedules", "delete", "absent").returncode == 3


def test_how_models_are_kept_and_what_a_ledger_lacks_is_shown(pool: ScriptedPool) -> None:
    assert "on-demand" in yolopool(pool, "models", "list").stdout
    shown = yolopool(pool, "workers", "list").stdout
    for words in ("in the place of", "128.0 MiB less for", "256.0 MiB did not"):
        assert words in shown
    worker = json.loads(yolopool(pool, "workers", "list", "--json").stdout)[0]
    assert worker["replaces_because"] == "256 MiB did not come back [budget]"


def test_register(pool: ScriptedPool, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    done = yolopool(pool, "models", "register", "shapes", path, "--imgsz", "320")
    assert done.returncode == 0, done.stderr
    assert "shapes@1" in done.stdout
    assert pool.script.last("RegisterModel").settings.image_size == 320


def test_register_weights_alone_with_a_head(pool: ScriptedPool, tmp_path: Path) -> None:
    weights, yaml = tmp_path / "weights.pt", tmp_path / "yolo26s.yaml"
    weights.write_bytes(b"weights")
    yaml.write_text("scales: {n: [1, 1, 1], s: [1, 1, 1]}\n")
    arguments = ["--arch", str(yaml), "--names", "circle, square", "--head", "end-to-end"]
    done = yolopool(pool, "models", "register", "shapes", weights, *arguments)
    assert done.returncode == 0, done.stderr
    request = pool.script.last("RegisterModel")
    assert request.architecture_yaml == f"scale: s\n{yaml.read_text()}"
    assert list(request.class_names) == ["circle", "square"]
    assert request.settings.head_mode == types_pb2.HEAD_MODE_END_TO_END


def test_residency_changes_what_is_given(pool: ScriptedPool) -> None:
    arguments = ["--mode", "on-demand", "--idle-s", "30"]
    done = yolopool(pool, "models", "residency", "shapes", *arguments)
    assert done.returncode == 0, done.stderr
    assert "on-demand, released when idle for 30 s" in done.stdout
    asked = pool.script.last("SetResidency").residency
    assert asked.mode == types_pb2.RESIDENCY_MODE_ON_DEMAND
    assert (asked.idle_release_s, asked.cpu_fallback) == (30, True)
    done = yolopool(pool, "models", "residency", "shapes", "--no-cpu-fallback")
    assert done.returncode == 0, done.stderr
    asked = pool.script.last("SetResidency").residency
    assert (asked.mode, asked.cpu_fallback) == (types_pb2.RESIDENCY_MODE_ON_DEMAND, False)
    assert yolopool(pool, "models", "residency", "shapes", "--mode", "warm").returncode == 4


def test_a_failed_import_is_a_failed_command(pool: ScriptedPool, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    pool.script.states = [model_pb2.VERSION_STATE_FAILED]
    done = yolopool(pool, "models", "register", "shapes", path)
    assert done.returncode == 4
    assert "FAILED" in done.stderr


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("MODEL_NOT_FOUND", 3), ("IMAGE_NOT_DECODABLE", 4), ("DIGEST_MISMATCH", 4),
        ("DEADLINE_EXCEEDED", 6), ("QUEUE_FULL", 7), ("MODEL_TOO_LARGE", 8), ("LOAD_FAILED", 1),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_a_code(
    pool: ScriptedPool, image: Path, reason: str, code: int
) -> None:
    done = yolopool(pool, "detect", image, "--model", reason)
    assert done.returncode == code
    assert done.stderr.splitlines() == [f"error {reason}: no luck: try less"]


def test_no_pool_and_no_file(image: Path) -> None:
    done = yolopool(None, "status")
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1)
    done = yolopool(None, "detect", "/nowhere.png", "--model", "shapes")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_wrong_usage_is_2(pool: ScriptedPool) -> None:
    assert yolopool(pool, "models", "load").returncode == 2
