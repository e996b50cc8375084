"""Settings of a worker: forms of the memory budget, lists, and the hand-over to a child."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from worker.settings import (
    MemoryBudget,
    Settings,
    default_budget,
    parse_budget,
    parse_labels,
    read_settings,
)
from yolopool.tls import authority

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("4294967296", MemoryBudget(size_bytes=4 * GIB)),
        ("4GiB", MemoryBudget(size_bytes=4 * GIB)),
        ("1.5 g", MemoryBudget(size_bytes=1_500_000_000)),
        ("500MB", MemoryBudget(size_bytes=500_000_000)),
        ("512kib", MemoryBudget(size_bytes=512 * 1024)),
        ("0.8", MemoryBudget(fraction=0.8)),
        ("1.0", MemoryBudget(fraction=1.0)),
        ("1", MemoryBudget(size_bytes=1)),
    ],
)
def test_forms_of_a_memory_budget(text: str, budget: MemoryBudget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "0.0", "4 GiBs", "80%"])
def test_other_forms_say_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="is not a memory budget"):
        parse_budget(text)


def test_a_fraction_is_of_what_is_there() -> None:
    assert parse_budget("0.5").resolve(10 * GIB) == 5 * GIB
    assert parse_budget("4GiB").resolve(10 * GIB) == 4 * GIB
    assert default_budget("cuda").resolve(10 * GIB) == 8 * GIB
    assert default_budget("sim").resolve(0) == 8 * GIB


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOPOOL_WORKER_CONTROL_PLANES", "c:1, d:2")
    monkeypatch.setenv("YOLOPOOL_WORKER_MAX_BATCH", "3")
    settings = read_settings(["--max-batch", "5", "--device=sim:0"])
    assert settings.control_planes == ("c:1", "d:2")
    assert settings.max_batch == 5


def test_a_child_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(
        ["--control-planes=a:1,b:2", "--memory-budget=4GiB", "--no-log-json", "--labels=zone=a"]
    )
    monkeypatch.setenv("YOLOPOOL_WORKER_MAX_BATCH", "3")
    child = read_settings(settings.arguments(device="sim:1"))
    assert child == settings.model_copy(update={"device": "sim:1"})


def test_the_id_names_the_device() -> None:
    assert read_settings(["--device", "sim:3"]).worker_id.endswith("-sim-3")
    assert read_settings(["--device", "sim:3", "--id", "a"]).worker_id == "a"


@pytest.mark.parametrize("flag", ["--device=tpu", "--memory-budget=x", "--labels=novalue"])
def test_nonsense_is_refused(flag: str) -> None:
    with pytest.raises((ValidationError, SystemExit)):
        read_settings([flag])


def test_labels() -> None:
    assert parse_labels("zone=a, gpu=l4") == {"zone": "a", "gpu": "l4"}


def test_the_label_of_the_compute_class_is_the_workers_own() -> None:
    with pytest.raises(ValueError, match="sets the label compute-class itself"):
        parse_labels("zone=a, compute-class=mine")
    with pytest.raises(ValueError, match="sandbox"):
        parse_labels("sandbox=files")


EVERYWHERE = "0.0.0.0"
OWN = {"tls_cert": "c.pem", "tls_key": "c.key"}


@pytest.mark.parametrize(
    ("given", "is_safe"),
    [
        ({}, True),
        ({"host": EVERYWHERE}, False),
        ({"host": EVERYWHERE, "insecure": True}, True),
        # Encrypted, and yet it would obey whoever reaches it.
        ({"host": EVERYWHERE, **OWN}, False),
        ({"host": EVERYWHERE, **OWN, "insecure": True}, True),
        ({"host": EVERYWHERE, **OWN, "tls_ca": "ca.pem"}, True),
        ({"host": EVERYWHERE, "join_token_file": "token"}, True),
        ({"host": "127.0.0.1", **OWN}, True),
    ],
)
def test_a_worker_obeys_nobody_in_the_network_by_accident(
    given: dict[str, Any], is_safe: bool
) -> None:
    if is_safe:
        Settings(**given)
        return
    with pytest.raises(ValueError, match="--insecure"):
        Settings(**given)


def test_a_child_does_not_join_again() -> None:
    given: dict[str, Any] = {"join_token_file": Path("token"), "join_at": ("a:1", "b:2")}
    settings = Settings(**given)
    joining = settings.joining()
    assert joining is not None
    assert (joining.at, joining.token_file) == (("a:1", "b:2"), Path("token"))
    assert read_settings([]).joining() is None
    assert not any("join-token" in word for word in settings.arguments(join_token_file=None))
    files = settings.with_files(joining.files)
    assert files.tls_cert == files.tls_key == joining.folder / "own.pem"


@pytest.mark.parametrize(
    ("name", "role", "flags", "alone", "expected"),
    [
        ("gpu-1", "worker", [], True, "gpu-1-vm-3-cuda-GPU-5b3e"),
        ("gpu-1", "worker", ["--id=gpu-1"], True, "gpu-1"),
        ("gpu-1", "worker", ["--id=gpu-1"], False, "gpu-1-cuda-GPU-5b3e"),
        ("vm-3", "worker", [], False, "vm-3-cuda-GPU-5b3e"),
        ("vm", "worker", [], False, "vm-3-cuda-GPU-5b3e"),
        ("gpu-1", "client", [], True, "vm-3-cuda-GPU-5b3e"),  # it names no process of the pool
    ],
)
def test_an_id_is_one_of_the_certificate(
    name: str, role: str, flags: list[str], alone: bool, expected: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("socket.gethostname", lambda: "vm-3")
    authority.create(tmp_path, 1e9)
    authority.issue(tmp_path, name, role, ["127.0.0.1"], 1.0, 1e9)
    own = [f"--tls-cert={tmp_path / name}.pem", f"--tls-key={tmp_path / name}.key"]
    settings = read_settings([*own, *flags])
    assert settings.id_of("cuda:GPU-5b3e", alone) == expected
