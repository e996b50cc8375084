"""The command line against a real server: output for people and programs, and exit codes."""

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from tests.contract.cli.command_line import CLI, environment, yolopool
from tests.contract.scripted_pool import NO_IMAGE, ScriptedPool
from tests.full_disk import full_disk
from yolopool.v1 import events_pb2, model_pb2, types_pb2


def test_as_a_process(pool: ScriptedPool) -> None:
    """What the others leave out: the interpreter's end, and its exit status."""
    own = os.environ | environment(pool)
    done = subprocess.run([*CLI, "models", "list"], env=own, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == yolopool(pool, "models", "list").stdout
    own["YOLOPOOL_ADDRESS"] = "127.0.0.1:1"
    done = subprocess.run([*CLI, "status"], env=own, capture_output=True, check=False)
    assert done.returncode == yolopool(None, "status").returncode != 0


def test_detect_for_people(pool: ScriptedPool, image: Path, tmp_path: Path) -> None:
    saved = tmp_path / "out.jpg"
    done = yolopool(pool, "detect", image, "--model", "shapes", "--save", saved)
    assert done.returncode == 0, done.stderr
    assert "square" in done.stdout
    assert "0.900" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    with Image.open(saved) as picture:
        assert picture.size == (160, 120)


def test_one_bad_image_loses_no_other(pool: ScriptedPool, image: Path, tmp_path: Path) -> None:
    bad, absent, folder = tmp_path / "bad.jpg", tmp_path / "absent.png", tmp_path / "drawn"
    bad.write_bytes(NO_IMAGE)
    words = ("detect", image, bad, absent, image, "--model", "shapes")
    done = yolopool(pool, *words, "--save", folder)
    assert done.returncode == 4
    assert done.stdout.count("0.900") == 2
    failed = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert failed[0] == f"error IMAGE_NOT_DECODABLE: {bad}: no luck: give a JPEG"
    assert str(absent) in failed[1]
    # The fourth image is not given the name of the second.
    assert sorted(path.name for path in folder.iterdir()) == ["street-2.png", "street.png"]
    done = yolopool(pool, *words, "--json")
    assert done.returncode == 4
    told = json.loads(done.stdout)
    assert [one["path"] for one in told] == [str(path) for path in (image, bad, absent, image)]
    assert [one.get("error", {}).get("reason") for one in told] == [
        None, "IMAGE_NOT_DECODABLE", "FILE_UNREADABLE", None,
    ]  # fmt: skip


def test_what_all_images_share_ends_the_command(pool: ScriptedPool, image: Path) -> None:
    done = yolopool(pool, "detect", image, image, "--model", "MODEL_NOT_FOUND", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == ["error MODEL_NOT_FOUND: no luck: try less"]


def test_nothing_is_saved_over_an_image(pool: ScriptedPool, image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    done = yolopool(pool, "detect", image, "--model", "shapes", "--save", tmp_path)
    assert (done.returncode, done.stderr) == (0, f"saved {tmp_path / 'street-2.png'}\n")
    link = tmp_path / "link.png"
    link.symlink_to(image)
    done = yolopool(pool, "detect", image, "--model", "shapes", "--save", link)
    assert done.returncode == 4
    assert "would replace the image itself" in done.stderr
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["x.xyz", "no_ending", "missing/x.png", "street.png/x.png", "several.jpg"]
)
def test_where_nothing_can_be_saved_nothing_is_asked(
    pool: ScriptedPool, image: Path, tmp_path: Path, name: str
) -> None:
    images = [image, image] if name == "several.jpg" else [image]
    done = yolopool(pool, "detect", *images, "--model", "shapes", "--save", tmp_path / name)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert pool.script.calls == []


def test_what_a_full_disk_takes_is_said(pool: ScriptedPool, image: Path) -> None:
    words = [*CLI, "detect", str(image), "--model", "shapes"]
    own = os.environ | environment(pool)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, env=own, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "No space left on device" in line


def test_without_stdout_a_command_is_done_all_the_same() -> None:
    words = ["sh", "-c", 'exec "$0" "$@" >&-', *CLI, "--version"]
    done = subprocess.run(words, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_stands_is_replaced_by_a_whole_image_or_stays(
    pool: ScriptedPool, image: Path, tmp_path: Path
) -> None:
    target = tmp_path / "saved" / "drawn.png"
    target.parent.mkdir()
    target.write_bytes(b"of an earlier run")
    words = ("detect", image, "--model", "shapes", "--save", target)
    with full_disk(10):
        done = yolopool(pool, *words)
    assert done.returncode == 1
    assert str(target) in done.stderr
    assert target.read_bytes() == b"of an earlier run"
    assert yolopool(pool, *words).returncode == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert list(target.parent.iterdir()) == [target]


def test_without_memory_a_command_ends_in_a_line(pool: ScriptedPool, image: Path) -> None:
    with mock.patch.object(Path, "read_bytes", side_effect=MemoryError):
        done = yolopool(pool, "detect", image, "--model", "shapes")
    assert (done.returncode, len(done.stderr.splitlines())) == (7, 1)
    assert done.stderr.startswith("error OUT_OF_MEMORY: ")


def test_detect_for_programs(pool: ScriptedPool, image: Path) -> None:
    flags = ("--model", "shapes", "--conf", "0.4", "--priority", "bulk", "--json")
    done = yolopool(pool, "detect", image, *flags)
    (answer,) = json.loads(done.stdout)
    assert answer["detections"][0]["class_name"] == "square"
    asked = pool.script.last("Detect")
    assert asked.options.confidence == pytest.approx(0.4)
    assert asked.priority == types_pb2.PRIORITY_BULK


@pytest.mark.parametrize(
    "command",
    [
        ("models", "list"), ("models", "show", "shapes"), ("models", "load", "shapes"),
        ("models", "unload", "shapes"), ("models", "delete", "shapes"), ("workers", "list"),
        ("store", "gc", "--dry-run"),
        ("models", "residency", "shapes"), ("status",), ("models", "plan", "shapes"),
        ("explain", "model", "shapes"), ("explain", "request", "r1"),
        ("schedules", "list"),
        ("changeover", "--load", "shapes", "--release", "old"),
        ("models", "aliases"), ("models", "alias", "shapes:stable"),
        ("models", "alias", "shapes:stable", "1=95", "2=5"),
        ("models", "promote", "shapes@2", "--to", "stable"),
        ("models", "rollback", "shapes:stable"), ("models", "unalias", "shapes:stable"),
        ("schedules", "set", "day", "--cron", "0 6 * * *", "--load", "shapes"),
        ("workers", "drain", "box-cpu"), ("bench", "shapes"),
    ],
)  # fmt: skip
def test_every_command_speaks_both_ways(pool: ScriptedPool, command: tuple[str, ...]) -> None:
    people, programs = yolopool(pool, *command), yolopool(pool, *command, "--json")
    assert people.returncode == 0, people.stderr
    assert people.stdout.strip()
    assert max(map(len, people.stdout.splitlines())) <= 80
    json.loads(programs.stdout)


def test_a_sweep_tells_what_went_and_what_is_kept(pool: ScriptedPool) -> None:
    shown = yolopool(pool, "store", "gc").stdout
    assert not pool.script.last("SweepStore").HasField("grace_s")
    for words in ("pack", "2.0 KiB", "removed", "kept for 30 s more"):
        assert words in shown
    assert "may be removed" in yolopool(pool, "store", "gc", "--dry-run").stdout
    assert yolopool(pool, "store", "gc", "--grace", "0").returncode == 0
    assert pool.script.last("SweepStore").grace_s == 0
    assert yolopool(pool, "store", "gc", "--grace", "-1").returncode != 0


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


def test_an_alias_is_promoted_rolled_back_and_shown(pool: ScriptedPool) -> None:
    order = ("--expect", "1", "--keep", "1h", "--within", "90s", "--why", "better", "--no-wait")
    done = yolopool(pool, "models", "promote", "shapes@2", "--to", "stable", *order)
    assert done.returncode == 0, done.stderr
    assert "shapes:stable means 1 95 % + 2 5 %" in done.stdout
    assert "yolopool models rollback shapes:stable" in done.stdout
    sent = pool.script.last("PromoteModel")
    assert (sent.expected_version, sent.keep_s, sent.within_s) == (1, 3600.0, 90.0)
    assert (sent.why, sent.wait, sent.force) == ("better", False, False)
    refused = yolopool(pool, "models", "promote", "shapes@2", "--to", "stable", "--expect", "9")
    assert refused.returncode == 8
    assert "ALIAS_CHANGED" in refused.stderr
    yolopool(pool, "models", "alias", "shapes:stable", "1=95", "2=5", "--force")
    sent = pool.script.last("SetAlias")
    assert [(one.version, one.weight) for one in sent.targets] == [(1, 950), (2, 50)]
    assert sent.force
    shown = yolopool(pool, "models", "alias", "shapes:stable").stdout
    for words in ("SET", "ann", "try [it]", "1 more replica of", "revision 3", "keeps 3"):
        assert words in " ".join(shown.split()), words
    assert yolopool(pool, "models", "alias", "shapes:stable", "1=95", "2=6").returncode == 4


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
    for words in ("replaces another", "128.0 MiB used by", "256.0 MiB not given", "cordoned"):
        assert words in shown
    worker = json.loads(yolopool(pool, "workers", "list", "--json").stdout)[0]
    assert worker["replaces_because"] == "256 MiB did not come back [budget]"


def test_a_drain_tells_what_has_no_other_place(pool: ScriptedPool) -> None:
    done = yolopool(pool, "workers", "drain", "box-cpu", "--wait")
    assert (done.returncode, done.stdout) == (0, "box-cpu has left\n")
    assert "no other worker had room for shapes@1" in done.stderr
    assert pool.script.last("DrainWorker").wait
    assert yolopool(pool, "workers", "drain", "nobody").returncode == 3


def test_a_curve_is_drawn_and_its_knee_is_named(pool: ScriptedPool, tmp_path: Path) -> None:
    drawn, picture = tmp_path / "curve.svg", tmp_path / "street.jpg"
    picture.write_bytes(b"jpeg")
    arguments = ("--batch", "1,4,8,2,16", "--shape", "640x320,64x64", "--seconds", "0.5")
    more = ("--image", picture, "--svg", drawn, "--worker", "box-cpu", "--device", "cpu")
    done = yolopool(pool, "bench", "shapes", *arguments, *more)
    assert done.returncode == 0, done.stderr
    for words in (
        "shapes@1 fp32 on box-cpu, a [fast] CPU",
        "left out",
        "333.3",
        "25%",
        "█",
        "> ",
        "knee at 640x320: batch 8, 333 images",
    ):
        assert words in done.stdout
    assert "640x320 x16 left out: LEDGER_FULL: it needs [more] bytes" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert ET.fromstring(drawn.read_text()).tag.endswith("svg")
    sent = pool.script.last("BenchModel")
    assert (sent.model, sent.worker, sent.device_kind) == ("shapes", "box-cpu", "cpu")
    assert [(one.width, one.height) for one in sent.sweep.shapes] == [(640, 320), (64, 64)]
    assert list(sent.sweep.batch_sizes) == [1, 4, 8, 2, 16]
    assert (sent.sweep.seconds, sent.sweep.image) == (0.5, b"jpeg")
    assert all(call != "SetBatching" for call, _, _ in pool.script.calls)


def test_a_knee_is_stored_beside_what_is_set(pool: ScriptedPool) -> None:
    pool.script.batching["cpu"] = types_pb2.Batching(max_batch=32, max_delay_ms=5)
    done = yolopool(pool, "bench", "shapes", "--batch", "1,2,4,8,16", "--store", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["knees"]["320x320"]["batch"] == 8
    assert [one["batch"] for one in answer["points"]] == [1, 2, 4, 8, 16]
    sent = pool.script.last("SetBatching")
    assert (sent.model, sent.device_kind) == ("shapes@1", "cpu")
    assert sent.batching == types_pb2.Batching(
        max_batch=8, preferred_sizes=[1, 2, 4, 8], max_delay_ms=5
    )


def test_of_a_sweep_that_was_cut_nothing_is_stored(pool: ScriptedPool, tmp_path: Path) -> None:
    drawn = tmp_path / "curve.svg"
    cut = ("bench", "shapes", "--batch", "1,2,4", "--worker", "leaver")
    done = yolopool(pool, *cut, "--store", "--svg", drawn)
    assert done.returncode == 6, done.stderr
    assert "knee at" in done.stdout
    assert "cut before its end" in done.stderr
    assert "nothing is stored" in done.stderr
    assert "cut before its end" in drawn.read_text()
    assert all(call != "SetBatching" for call, _, _ in pool.script.calls)
    done = yolopool(pool, *cut, "--json")
    assert (done.returncode, json.loads(done.stdout)["whole"]) == (0, False)


def test_more_shapes_than_can_be_told_apart_are_refused_before_the_sweep(
    pool: ScriptedPool, tmp_path: Path
) -> None:
    shapes = ",".join(f"64x{32 * number}" for number in range(1, 8))
    svg = ("--svg", tmp_path / "curve.svg")
    done = yolopool(pool, "bench", "shapes", "--shape", shapes, *svg)
    assert done.returncode == 4, done.stderr
    assert "6 shapes" in done.stderr
    assert all(call != "BenchModel" for call, _, _ in pool.script.calls)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--batch", "two"), 4), (("--shape", "640"), 4), (("--worker", "nobody"), 3),
        (("--batch", "16"), 7), (("--batch", "4", "--svg", "/nowhere/curve.svg"), 4),
    ],
)  # fmt: skip
def test_a_sweep_that_says_nothing_is_an_error(
    pool: ScriptedPool, arguments: tuple[str, ...], code: int
) -> None:
    done = yolopool(pool, "bench", "shapes", *arguments)
    assert done.returncode == code, done.stderr


def test_an_unload_by_force(pool: ScriptedPool) -> None:
    assert yolopool(pool, "models", "unload", "shapes", "--force").returncode == 0
    assert pool.script.last("UnloadModel").force


def test_register(pool: ScriptedPool, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    done = yolopool(pool, "models", "register", "shapes", path, "--imgsz", "320")
    assert done.returncode == 0, done.stderr
    assert "shapes@1" in done.stdout
    assert pool.script.last("RegisterModel").settings.image_size == 320


def test_register_a_rectangle(pool: ScriptedPool, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    done = yolopool(pool, "models", "register", "shapes", path, "--imgsz", "192,320")
    assert done.returncode == 0, done.stderr
    settings = pool.script.last("RegisterModel").settings
    assert (settings.image_size, settings.image_height, settings.image_width) == (0, 192, 320)
    for wrong in ("192,", "1,2,3", "wide", "-5"):
        done = yolopool(pool, "models", "register", "shapes", path, f"--imgsz={wrong}")
        assert done.returncode == 4
        assert "HEIGHT,WIDTH" in done.stderr


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
    assert "on-demand, unloaded after 30 s without a request" in done.stdout
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


# The others would fail for every image alike.
OF_IMAGE = (
    "IMAGE_NOT_DECODABLE", "DIGEST_MISMATCH", "DEADLINE_EXCEEDED", "DEADLINE_UNMEETABLE",
    "QUEUE_FULL", "LOAD_FAILED",
)  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("MODEL_NOT_FOUND", 3), ("IMAGE_NOT_DECODABLE", 4), ("DIGEST_MISMATCH", 4),
        ("DEADLINE_EXCEEDED", 6), ("DEADLINE_UNMEETABLE", 6), ("QUEUE_FULL", 7),
        ("MODEL_TOO_LARGE", 8), ("LOAD_FAILED", 1),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_a_code(
    pool: ScriptedPool, image: Path, reason: str, code: int
) -> None:
    done = yolopool(pool, "detect", image, "--model", reason, "--timeout", "1")
    assert done.returncode == code
    of_image = f"{image}: " if reason in OF_IMAGE else ""
    assert done.stderr.splitlines() == [f"error {reason}: {of_image}no luck: try less"]


def test_no_pool_and_no_file(image: Path) -> None:
    done = yolopool(None, "status")
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1)
    done = yolopool(None, "detect", "/nowhere.png", "--model", "shapes")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    done = yolopool(None, "detect", image, "--model", "shapes", "--priority", "urgent")
    assert done.returncode == 4
    assert "'urgent': one of interactive, normal, bulk" in done.stderr


def test_events_are_a_line_each(pool: ScriptedPool) -> None:
    arguments = ("--last", "2", "--model", "shapes", "--worker", "box-cpu", "--kind", "released")
    done = yolopool(pool, "events", *arguments)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.endswith("  RELEASED         shapes@1 on box-cpu: ROOM: to make [room]")
    assert "shapes@2" in second
    asked = pool.script.last("WatchEvents")
    assert (asked.last, asked.model, asked.worker) == (2, "shapes", "box-cpu")
    assert list(asked.kinds) == [events_pb2.EVENT_KIND_RELEASED]
    lines = yolopool(pool, "events", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["1-0", "2-0"]
    assert yolopool(pool, "events", "--kind", "eclipse").returncode == 4
    assert yolopool(None, "events", "--follow").returncode == 5


def test_following_events_outlives_the_control_plane_and_ends_with_ctrl_c(
    pool: ScriptedPool,
) -> None:
    command = subprocess.Popen(
        [*CLI, "events", "--follow", "--json", "--last", "9"],
        env={**os.environ, "YOLOPOOL_ADDRESS": pool.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    # The first stream ends, the later ones break: each goes on behind what was seen.
    seen = [json.loads(command.stdout.readline())["id"] for _ in range(4)]
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=60)
    assert seen == ["1-0", "2-0", "3-0", "4-0"]
    assert command.returncode == 0
    assert "the control plane stopped" in said
    assert "REGISTRY_UNAVAILABLE: Redis does not answer" in said
    asked = [request for call, request, _ in pool.script.calls if call == "WatchEvents"]
    assert [(one.after, one.last) for one in asked[:3]] == [("", 9), ("2-0", 0), ("3-0", 0)]


def test_plans_and_explanations_are_for_people(pool: ScriptedPool) -> None:
    done = yolopool(pool, "models", "plan", "shapes", "--replicas", "2", "--pin")
    assert done.stdout == "1. assign shapes@1 to box-cpu: it fits\n"
    asked = pool.script.last("PlanLoad")
    assert (asked.model, asked.replicas, asked.pin) == ("shapes", 2, True)
    assert yolopool(pool, "models", "plan", "there").stdout.startswith("nothing to do")
    shown = yolopool(pool, "explain", "model", "shapes").stdout
    for words in (
        "it waits for [room]",
        "0.125/s over 1 h",
        "2.5 s of cold starts",
        "LEDGER_FULL",
        "12.5 s",
    ):
        assert words in shown
    shown = yolopool(pool, "explain", "request", "r1").stdout
    for words in ("loaded on arrival", "box-1: QUEUE_FULL", "device 12.5 ms"):
        assert words in shown
    done = yolopool(pool, "explain", "request", "absent")
    assert (done.returncode, "REQUEST_NOT_FOUND" in done.stderr) == (3, True)


@pytest.mark.parametrize("option", ["--port", "--http-port"])
@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_is_none_is_wrong_usage(option: str, port: str) -> None:
    assert yolopool(None, "up", option, port).returncode == 2


def test_wrong_usage_is_2(pool: ScriptedPool) -> None:
    assert yolopool(pool, "models", "load").returncode == 2


def test_batching_is_set_where_it_is_said_and_shown(pool: ScriptedPool) -> None:
    command = ("models", "batching", "shapes", "--device", "cpu")
    done = yolopool(
        pool,
        *command,
        "--max-batch",
        "8",
        "--prefer",
        "4,8",
        "--max-delay-ms",
        "5",
        "--p99-ms",
        "50",
    )
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "cpu: up to 8 images a pass, preferably 4, 8, waits at most 5 ms" in told
    assert "adapted to a p99 of 50 ms" in told
    assert yolopool(pool, *command, "--reset").returncode == 0
    assert not pool.script.last("SetBatching").HasField("batching")
    for wrong in ((), ("--reset", "--fixed"), ("--prefer", "many")):
        assert yolopool(pool, *command, *wrong).returncode == 4
