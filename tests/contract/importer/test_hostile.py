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

from importer import archive, child
from importer.refusal import ImportRefused
from tests.contract.imports import import_in_child, refusal_of
from tests.models import Zoo, build_woken, save
from yolopool.v1.importing_pb2 import ImportProgress

GIB = 1024**3
# Each takes an import of its own: tests of this mark are the cases of one matrix.
one_of_many = pytest.mark.matrix(sample=5, of="hostile files")


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


@pytest.mark.matrix(sample=2)
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


def said(words: str) -> bytes:
    """A text in a pickle, by an opcode that torch reads: so that only the call is to blame."""
    return b"X" + struct.pack("<I", len(words)) + words.encode()


_SYSTEM = b"cos\nsystem\n"
_TUPLE_OF_MAP = b"cbuiltins\ntuple\ncbuiltins\nmap\n" + _SYSTEM
# Each runs a shell command in whoever reads it with `pickle`.
GADGETS: dict[str, Callable[[bytes], bytes]] = {
    "GLOBAL and REDUCE": lambda code: b"\x80\x02" + _SYSTEM + code + b"\x85R.",
    "STACK_GLOBAL and REDUCE": lambda code: (
        b"\x80\x04" + said("os") + said("system") + b"\x93" + code + b"\x85R."
    ),
    "INST": lambda code: b"\x80\x02(" + code + b"ios\nsystem\n.",
    "OBJ": lambda code: b"\x80\x02(" + _SYSTEM + code + b"o.",
    # tuple(map(os.system, [command]))
    "NEWOBJ": lambda code: (
        b"\x80\x02" + _TUPLE_OF_MAP + b"]" + code + b"a\x86\x81\x85\x81."
    ),
    "NEWOBJ_EX": lambda code: (
        b"\x80\x04" + _TUPLE_OF_MAP + b"]" + code + b"a\x86}\x92\x85}\x92."
    ),
    # An object that is told how to set its state, and then its state.
    "BUILD": lambda code: (
        b"\x80\x02cargparse\nNamespace\n)\x81}"
        + said("__setstate__") + _SYSTEM + b"sb" + code + b"b."
    ),
    "BUILD of a layer": lambda code: (
        b"\x80\x02ctorch.nn.modules.linear\nIdentity\n)\x81}"
        + said("__setstate__") + _SYSTEM + b"sb" + code + b"b."
    ),
    "deep inside": lambda code: (
        b"\x80\x02}" + said("model") + b"]((" + _SYSTEM + code + b"\x85Rttas."
    ),
}  # fmt: skip
# What else is not to be called, whatever it would do.
FUNCTIONS = {
    "of the library": b"cultralytics.utils.checks\ncheck_requirements\n",
    "that loads": b"ctorch.hub\nload\n",
    "that unpickles": b"cpickle\nloads\n",
    "of a missing package": b"cno_such_package_of_mine\nthing\n",
}


@pytest.mark.parametrize("kind", GADGETS)
def test_the_gadgets_are_alive(kind: str, tmp_path: Path) -> None:
    canary = tmp_path / "sung"
    pickle.loads(GADGETS[kind](said(f"touch {canary}")))
    assert canary.exists()


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("kind", GADGETS)
async def test_no_opcode_calls_anything(kind: str, tmp_path: Path, canary: Path) -> None:
    data = GADGETS[kind](said(f"touch {canary}"))
    refusal = await refusal_of(archive_of(data, tmp_path / "hostile.pt"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_UNSAFE"


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("kind", FUNCTIONS)
async def test_no_function_is_called(kind: str, tmp_path: Path) -> None:
    data = b"\x80\x02" + FUNCTIONS[kind] + said("true") + b"\x85R."
    refusal = await refusal_of(archive_of(data, tmp_path / "hostile.pt"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_UNSAFE"


async def test_the_archives_made_here_are_read(tmp_path: Path) -> None:
    """Or all that is refused above might be so for its form alone."""
    path = archive_of(b"\x80\x02}" + said("model") + b"Ns.", tmp_path / "harmless.pt")
    refusal = await refusal_of(path, tmp_path / "work")
    assert "holds no model" in refusal.message


@pytest.mark.parametrize("kind", GADGETS)
def test_a_pickle_without_an_archive_is_not_opened(kind: str, tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(GADGETS[kind](said(f"touch {canary}")))
    with pytest.raises(ImportRefused, match=r"torch 1\.6"):
        archive.is_onnx(path)


@one_of_many
async def test_a_file_of_before_torch_1_6_is_not_opened(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "old.pt"
    hostile = {"model": Runs(os.system, f"touch {canary}")}
    torch.save(hostile, path, _use_new_zipfile_serialization=False)
    assert (await refusal_of(path, tmp_path / "old")).reason == "ARTIFACT_INVALID"


@one_of_many
async def test_code_among_weights_alone_is_not_run(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "hostile.pt"
    torch.save({"model.0.conv.weight": Runs(os.system, f"touch {canary}")}, path)
    of = child.Architecture("yolov8n.yaml", ("a",))
    assert (await refusal_of(path, tmp_path / "work", weights_of=of)).reason == "ARTIFACT_UNSAFE"


class Foreign(nn.Module):
    """A layer that is not the library's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@one_of_many
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
    "call of an activation": lambda yaml, code: yaml.update(activation=f"nn.ReLU()({code})"),
    "layer": lambda yaml, code: yaml["backbone"][0].__setitem__(2, code),
    "layer that loads": lambda yaml, code: yaml["backbone"][0].__setitem__(2, "TorchVision"),
    "argument": lambda yaml, code: yaml["backbone"][0].__setitem__(3, [code]),
}


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("kind", HOSTILE_YAML)
async def test_code_in_the_architecture_is_not_run(kind: str, tmp_path: Path, canary: Path) -> None:
    model = build_woken("yolov8n.yaml", 1)
    HOSTILE_YAML[kind](model.yaml, call(canary))
    refusal = await refusal_of(save(model, tmp_path / "hostile.pt"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_UNSAFE"
    assert "architecture is refused" in refusal.message


@pytest.mark.matrix(sample=5)
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
        # Nine times nine times nine ... of one entry.
        ("a0: &a0 {x: 1}\n" + "\n".join(
            f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)
        ), "ARTIFACT_INVALID"),
        ("hook: x\nbackbone: [[-1, 1, Conv, [8]]]\nhead: [[[0], 1, Detect, [nc]]]",
         "ARTIFACT_INVALID"),
        (f"backbone: [{','.join(['[-1, 100, Conv, [1]]'] * 400)}]\nhead: [[[0], 1, Detect, [nc]]]",
         "ARTIFACT_INVALID"),
        ("depth_multiple: 8\nbackbone: [[-1, 100, C3k2, [8]],[-1, 100, C3k2, [8]]]\n"
         "head: [[[0], 1, Detect, [nc]]]", "ARTIFACT_INVALID"),
        ("backbone: [[-1, 1, Conv, [16384]], [-1, 1, Conv, [16384, 3]]]\n"
         "head: [[[0, 1], 1, Detect, [nc]]]", "IMPORT_OUT_OF_MEMORY"),
        ("backbone: [[-1, 1, Conv, [8]], [-1, 1, nn.Upsample, [None, 10000, nearest]]]\n"
         "head: [[[0, 1], 1, Detect, [nc]]]", "IMPORT_OUT_OF_MEMORY"),
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


@one_of_many
@pytest.mark.parametrize("begins", [b"", b"PK\x03\x04"])
async def test_ten_gigabytes_within_the_limit_are_not_read(begins: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sparse.pt"
    with path.open("wb") as file:
        file.write(begins)
        file.truncate(10 * GIB)
    refusal = await refusal_of(path, tmp_path / "work", sha256="0" * 64, memory_bytes=GIB)
    assert refusal.reason == "ARTIFACT_INVALID"


@one_of_many
async def test_a_bomb_of_many_small_members_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"}.")
        for number in range(200):
            archive.writestr(f"archive/data/{number}", bytes(1_000_000))
    assert (await refusal_of(path, tmp_path / "work")).reason == "ARTIFACT_INVALID"


@one_of_many
async def test_sizes_that_lie_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    data = bytearray(zoo.checkpoint("shapes").read_bytes())
    entry = data.rfind(b"PK\x01\x02")  # the last of the directory
    data[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
    path = tmp_path / "lying.pt"
    path.write_bytes(bytes(data))
    assert (await refusal_of(path, tmp_path / "work")).reason == "ARTIFACT_INVALID"


@one_of_many
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


@one_of_many
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


@one_of_many
async def test_loading_without_end_is_ended(tmp_path: Path) -> None:
    # Sixty tuples, each of twice the one before, as a key: its hash walks them all.
    twice = b"".join(
        b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60)
    )
    data = b"\x80\x02)q\x00" + twice + b"}h\x3cK\x01s."
    path = archive_of(data, tmp_path / "endless.pt")
    steps: list[str] = []

    async def note(progress: ImportProgress) -> None:
        steps.append(progress.step)

    # A slow host needs longer until it loads at all.
    for time_s in (4, 15, 60):
        refusal = await refusal_of(path, tmp_path / str(time_s), time_s=time_s, on_progress=note)
        assert refusal.reason == "IMPORT_TIMEOUT"
        if steps[-1] == "load":
            break
    assert steps[-1] == "load"


@one_of_many
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


def explosive(model: Any) -> None:
    model.model[10].scale_factor = 10_000.0


def endless(model: Any) -> None:
    model.model[3].add_module("again", model)


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wider, "misshaped"),
        (longer, "missing"),
        (another_activation, "other answers"),
        (another_stride, ""),
        (endless, ""),
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


@one_of_many
async def test_a_model_that_explodes_when_it_runs_is_refused(tmp_path: Path) -> None:
    model = build_woken("yolov8n.yaml", 1)
    explosive(model)
    refusal = await refusal_of(save(model, tmp_path / "explosive.pt"), tmp_path / "work")
    assert refusal.reason == "IMPORT_OUT_OF_MEMORY"


@one_of_many
async def test_a_file_without_its_architecture_says_how_to_go_on(tmp_path: Path) -> None:
    model = build_woken("yolov8n.yaml", 1)
    del model.yaml
    refusal = await refusal_of(save(model, tmp_path / "bare.pt"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_INVALID"


async def test_after_all_of_them_a_good_file_is_imported(zoo: Zoo, tmp_path: Path) -> None:
    for kind in ("GLOBAL and REDUCE", "BUILD of a layer"):
        path = archive_of(GADGETS[kind](said("true")), tmp_path / f"{kind}.pt")
        await refusal_of(path, tmp_path / f"work of {kind}")
    pack = await import_in_child(zoo.checkpoint("shapes"), tmp_path / "good")
    assert pack.class_names == ["circle", "square", "triangle"]
