"""Hostile files: each is refused with its reason, nothing of it runs, and nothing is called."""

import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from importer import child
from tests.contract.imports import import_in_child, refusal_of
from tests.models import Zoo, build_woken, save

GIB = 1024**3


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that any code of a hostile file would make."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.fixture
def listener() -> Iterator[tuple[str, int]]:
    """A server that nobody may call."""
    calls = []
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                calls.append(server.accept())
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    yield server.getsockname()[:2]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    assert calls == []


class Runs:
    """A pickle that would call something."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        function, *arguments = self.call
        return function, tuple(arguments)


def archive_of(data: bytes, path: Path) -> Path:
    """A checkpoint, as torch writes it, around a pickle made by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


# --- code in a pickle -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, getattr, subprocess.check_call, socket.create_connection],
)
async def test_a_call_in_a_checkpoint_is_not_made(
    function: Any, tmp_path: Path, canary: Path, listener: tuple[str, int]
) -> None:
    code = f"open({str(canary)!r}, 'w')"
    arguments: dict[Any, tuple[Any, ...]] = {
        os.system: (f"touch {canary}",),
        subprocess.check_call: (["touch", str(canary)],),
        getattr: (nn.Module, "__init__"),
        socket.create_connection: (listener,),
    }
    path = tmp_path / "hostile.pt"
    torch.save({"model": Runs(function, *arguments.get(function, (code,)))}, path)
    assert (await refusal_of(path, tmp_path / "work")).reason == "ARTIFACT_UNSAFE"


# What a pickle may call something by; `%s` is a shell command.
OPCODES: dict[str, bytes] = {
    "GLOBAL and REDUCE": b"cos\nsystem\n(V%s\ntR.",
    "STACK_GLOBAL and REDUCE": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V%s\ntR.",
    "INST": b"(V%s\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nV%s\no.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(V%s\nt\x81.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n(V%s\nt}\x92.",
    "BUILD": b"\x80\x02cargparse\nNamespace\n)\x81}V__class__\nV%s\nsb.",
    "REDUCE within a tuple": b"((cos\nsystem\n(V%s\ntRtt.",
    "a function of the library's": b"cultralytics.utils.checks\ncheck_requirements\n(V%s\ntR.",
    "a loader": b"ctorch.hub\nload\n(V%s\nVx\ntR.",
    "a nested pickle": b"cpickle\nloads\n(V%s\ntR.",
    "getattr of a module": b"c__builtin__\ngetattr\n(cos\npath\nV%s\ntR.",
    "a missing package": b"cno_such_package_of_mine\nthing\n(V%s\ntR.",
}


@pytest.mark.parametrize("kind", OPCODES)
async def test_no_opcode_calls_anything(kind: str, tmp_path: Path, canary: Path) -> None:
    data = OPCODES[kind] % f"touch {canary}".encode()
    refusal = await refusal_of(archive_of(data, tmp_path / "hostile.pt"), tmp_path / "work")
    assert refusal.reason in {"ARTIFACT_UNSAFE", "ARTIFACT_INVALID"}


async def test_a_pickle_of_before_torch_1_6_is_not_opened(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "old.pt").write_bytes(OPCODES["GLOBAL and REDUCE"] % f"touch {canary}".encode())
    assert (await refusal_of(tmp_path / "old.pt", tmp_path / "old")).reason == "ARTIFACT_INVALID"


async def test_code_among_weights_alone_is_not_run(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "hostile.pt"
    torch.save({"model.0.conv.weight": Runs(os.system, f"touch {canary}")}, path)
    of = child.Architecture("yolov8n.yaml", ("a",))
    assert (await refusal_of(path, tmp_path / "work", weights_of=of)).reason == "ARTIFACT_UNSAFE"


class Foreign(nn.Module):
    """A layer that is not the library's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


async def test_a_class_outside_the_list_is_refused(tmp_path: Path) -> None:
    model = build_woken("yolov8n.yaml", 1)
    model.model[3].act = Foreign()
    refusal = await refusal_of(save(model, tmp_path / "hostile.pt"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_UNSAFE"
    assert "Foreign" in refusal.message


# --- code in the architecture -----------------------------------------------------------------


def call(canary: Path) -> str:
    return f"__import__('os').system('touch {canary}')"


HOSTILE_YAML: dict[str, Callable[[dict[str, Any], str], object]] = {
    "activation": lambda yaml, code: yaml.update(activation=code),
    "a method of torch": lambda yaml, code: yaml.update(activation="torch.hub.load('x', 'y')"),
    "argument of an activation": lambda yaml, code: yaml.update(activation=f"nn.ReLU({code})"),
    "layer": lambda yaml, code: yaml["backbone"][0].__setitem__(2, code),
    "layer that loads": lambda yaml, code: yaml["backbone"][0].__setitem__(2, "TorchVision"),
    "argument": lambda yaml, code: yaml["backbone"][0].__setitem__(3, [code]),
}


@pytest.mark.parametrize("kind", HOSTILE_YAML)
async def test_code_in_the_architecture_is_not_run(kind: str, tmp_path: Path, canary: Path) -> None:
    model = build_woken("yolov8n.yaml", 1)
    HOSTILE_YAML[kind](model.yaml, call(canary))
    refusal = await refusal_of(save(model, tmp_path / "hostile.pt"), tmp_path / "work")
    assert refusal.reason in {"ARTIFACT_UNSAFE", "ARTIFACT_INVALID"}
    assert "architecture is refused" in refusal.message


@pytest.mark.parametrize(
    ("yaml", "reason"),
    [
        ("!!python/object/apply:os.system ['%s']", "ARTIFACT_INVALID"),
        ("activation: __import__('os').system('%s')\nbackbone: [[-1,1,Conv,[1]]]\n"
         "head: [[-1,1,Detect,[nc]]]", "ARTIFACT_UNSAFE"),
        ("backbone: [[-1, 1, os.system, ['%s']]]\nhead: []", "ARTIFACT_UNSAFE"),
        ("backbone: [[-1, 100000, Conv, [64]]]\nhead: [[-1, 1, Detect, [nc]]]",
         "ARTIFACT_INVALID"),
        ("backbone: [[-1, 1, Conv, [1.0e+30]]]\nhead: [[-1, 1, Detect, [nc]]]",
         "ARTIFACT_INVALID"),
        ("a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nbackbone: *b\nhead: *b",
         "ARTIFACT_INVALID"),
        ("just words", "ARTIFACT_INVALID"),
        ("../../etc/passwd.yaml", "ARTIFACT_INVALID"),
        ("no-such-model.yaml", "ARTIFACT_INVALID"),
        ("x" * 100_000, "ARTIFACT_INVALID"),
    ],
)  # fmt: skip
async def test_a_hostile_yaml_is_refused(
    yaml: str, reason: str, tmp_path: Path, canary: Path
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model.0.conv.weight": torch.zeros(3)}, path)
    text = yaml % f"touch {canary}" if "%s" in yaml else yaml
    of = child.Architecture(text, ("a",))
    assert (await refusal_of(path, tmp_path / "work", weights_of=of)).reason == reason


# --- files that want too much ---------------------------------------------------------------------


def test_ten_gigabytes_of_nothing_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pt"
    with path.open("wb") as file:
        file.truncate(10 * GIB)
    done = subprocess.run(
        [sys.executable, "-m", "importer", str(path), f"--out={tmp_path}/packs"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert '"ARTIFACT_TOO_LARGE"' in done.stdout


@pytest.mark.parametrize("begins", [b"", b"PK\x03\x04"])
async def test_ten_gigabytes_within_the_limit_are_not_read(begins: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sparse.pt"
    with path.open("wb") as file:
        file.write(begins)
        file.truncate(10 * GIB)
    refusal = await refusal_of(path, tmp_path / "work", sha256="0" * 64, memory_bytes=GIB)
    assert refusal.reason == "ARTIFACT_INVALID"


async def test_a_bomb_of_many_small_members_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"}.")
        for number in range(200):
            archive.writestr(f"archive/data/{number}", bytes(1_000_000))
    assert (await refusal_of(path, tmp_path / "work")).reason == "ARTIFACT_INVALID"


async def test_sizes_that_lie_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    data = bytearray(zoo.checkpoint("shapes").read_bytes())
    entry = data.rfind(b"PK\x01\x02")  # the last of the directory
    data[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
    path = tmp_path / "lying.pt"
    path.write_bytes(bytes(data))
    assert (await refusal_of(path, tmp_path / "work")).reason == "ARTIFACT_INVALID"


async def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({}, 2)
    storage = (
        b"\x80\x02}X\x05\x00\x00\x00modelctorch._utils\n_rebuild_tensor_v2\n("
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        b"\x8a\x06\x00\x00\x00\x00\x00\x10tQK\x00\x8a\x06\x00\x00\x00\x00\x00\x10\x85K\x01\x85"
        b"\x89}tRs."
    )
    path = archive_of(storage, tmp_path / "large.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", data)
    assert (await refusal_of(path, tmp_path / "work", memory_bytes=GIB)).reason in {
        "ARTIFACT_INVALID",
        "IMPORT_OUT_OF_MEMORY",
    }


async def test_work_without_end_is_ended(tmp_path: Path) -> None:
    # Forty lists, each of ten times the one before: small to store, endless to walk through.
    lists = b"]q\x00" + b"".join(
        b"]q" + bytes([n + 1]) + b"(" + (b"h" + bytes([n])) * 10 + b"e" for n in range(40)
    )
    model = b"}X\x05\x00\x00\x00modelh\x28s."
    path = archive_of(b"\x80\x02" + lists + model, tmp_path / "laughs.pt")
    refusal = await refusal_of(path, tmp_path / "work", time_s=20, memory_bytes=GIB)
    assert refusal.reason in {
        "ARTIFACT_INVALID",
        "ARTIFACT_UNSUPPORTED",
        "IMPORT_TIMEOUT",
        "IMPORT_OUT_OF_MEMORY",
    }


async def test_a_pickle_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = archive_of(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", tmp_path / "deep.pt")
    assert (await refusal_of(path, tmp_path / "work")).reason in {
        "ARTIFACT_INVALID",
        "IMPORT_CRASHED",
        "IMPORT_OUT_OF_MEMORY",
    }


# --- layers that are not what the architecture says -----------------------------------------------


def wider(model: Any) -> None:
    model.model[1].conv = nn.Conv2d(16, 33, 3, 2, 1, bias=False)


def longer(model: Any) -> None:
    model.model[5] = nn.Sequential(*[model.model[5]] * 50)


def another_activation(model: Any) -> None:
    model.model[3].act = nn.Hardswish()


def another_stride(model: Any) -> None:
    model.model[10].scale_factor = 2.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wider, "misshaped"),
        (longer, "missing"),
        (another_activation, "other answers"),
        (another_stride, ""),
    ],
)
async def test_layers_changed_by_hand_are_noticed(
    change: Callable[[Any], None], words: str, tmp_path: Path
) -> None:
    model = build_woken("yolov8n.yaml", 1)
    change(model)
    refusal = await refusal_of(save(model, tmp_path / "changed.pt"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_INVALID"
    assert words in refusal.message


async def test_a_file_without_its_architecture_says_how_to_go_on(tmp_path: Path) -> None:
    model = build_woken("yolov8n.yaml", 1)
    del model.yaml
    refusal = await refusal_of(save(model, tmp_path / "bare.pt"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_INVALID"


async def test_after_all_of_them_a_good_file_is_imported(zoo: Zoo, tmp_path: Path) -> None:
    for number, data in enumerate(OPCODES.values()):
        path = archive_of(data % b"true", tmp_path / f"{number}.pt")
        await refusal_of(path, tmp_path / f"work-{number}")
        if number == 2:
            break
    pack = await import_in_child(zoo.checkpoint("shapes"), tmp_path / "good")
    assert pack.class_names == ["circle", "square", "triangle"]
