"""A Triton repository taken over by a real control plane: the plan, and what its commands do."""

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.contract.control_plane_rig import Rig
from tests.models import Zoo
from yolopool.cli.main import app
from yolopool.client.client import Client
from yolopool.client.model_records import Batching, ModelVersion
from yolopool.v1 import importing_pb2

CONFIG = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "images" data_type: TYPE_UINT8 dims: [ 3, 320, 320 ] } ]
version_policy { all {} }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 2000 }
instance_group [ { kind: KIND_CPU } ]
optimization { priority: PRIORITY_MIN }
response_cache { enable: true }
"""
ENSEMBLE = 'ensemble_scheduling { step { model_name: "yolo" } }'
# A field of each kind of Triton's own schema, as a line of a config.
EVERY_SETTING = """
from google.protobuf.descriptor import FieldDescriptor as F
from tritonclient.grpc import model_config_pb2
def texts(descriptor, around):
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and inner.full_name not in around:
            for path, text in texts(inner, (*around, inner.full_name)):
                yield f"{field.name}.{path}", f"{field.name} {{ {text} }}"
        elif inner is None:
            value = {F.CPPTYPE_STRING: '"x"', F.CPPTYPE_BOOL: "true", F.CPPTYPE_ENUM: "WORD"}
            yield field.name, f"{field.name}: {value.get(field.cpp_type, '1')}"
"""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path / "pool") as rig:
        yield rig


@pytest.fixture
def repository(tmp_path: Path, zoo: Zoo) -> Path:
    """A detector of two versions, which an ensemble calls, and an engine."""
    root = tmp_path / "repository"
    for version, name in (("1", "shapes"), ("3", "shapes-26")):
        (root / "yolo" / version).mkdir(parents=True)
        (root / "yolo" / version / "model.onnx").symlink_to(zoo.graph(name))
    (root / "yolo" / "config.pbtxt").write_text(CONFIG)
    (root / "street").mkdir()
    (root / "street" / "config.pbtxt").write_text(ENSEMBLE)
    (root / "engine" / "1").mkdir(parents=True)
    (root / "engine" / "1" / "model.plan").write_bytes(b"")
    return root


def migrate(repository: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["migrate", "triton", str(repository), *words])
    return done.exit_code, done.stdout


def in_a_process(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Beside a control plane that logs to this process's output."""
    main = "from yolopool.cli.main import main; main()"
    command = [sys.executable, "-c", main, "migrate", "triton", str(repository), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def imported(rig: Rig, work: Any, *failures: importing_pb2.ImportFailure | None) -> Any:
    """What `work` in a thread returns, while its uploads are imported one after another."""
    running = asyncio.create_task(asyncio.to_thread(work))
    for failure in failures:
        await rig.import_next(failure)
    return await running


def settings(version: ModelVersion) -> tuple[Any, ...]:
    return version.batching, version.placement, version.residency, version.artifact


async def test_what_is_planned_is_done_and_done_once(rig: Rig, repository: Path) -> None:
    address = rig.addresses.grpc
    status, planned = migrate(repository, "--json")
    commands = [word for model in json.loads(planned) for word in model["commands"]]
    assert (status, len(commands)) == (0, 5)
    with Client(address) as client:
        assert await asyncio.to_thread(client.models) == ()  # a dry run asks nobody
        words = (repository, "--apply", "--json", "--address", address)
        done = await imported(rig, lambda: in_a_process(*words), None, None)
        assert (done.returncode, json.loads(done.stdout)) == (
            0, [{"model": "street", "versions": ["street@1", "street@2"], "error": ""}],
        )  # fmt: skip
        (model,) = await asyncio.to_thread(client.models)
        newest, oldest = model.versions
        for version in (newest, oldest):
            assert version.batching == {"cpu": Batching(8, (4, 8), 2.0)}
            assert version.placement.priority == "bulk"
        assert newest.residency.cpu_fallback
        assert newest.artifact != oldest.artifact

        again = await asyncio.to_thread(in_a_process, *words)
        assert (again.returncode, again.stdout) == (0, done.stdout)

        def by_hand() -> None:
            for text in commands:
                words = shlex.split(text.replace("street", "by-hand"))[1:]
                done = CliRunner().invoke(app, [*words, "--address", address])
                assert done.exit_code == 0, (text, done.output)

        await asyncio.to_thread(by_hand)  # files that are imported already are ready at once
        (hand,) = await asyncio.to_thread(client.models, "by-hand")
        assert list(map(settings, hand.versions)) == list(map(settings, model.versions))


async def test_a_model_that_is_not_imported_is_named(rig: Rig, repository: Path) -> None:
    refusal = importing_pb2.ImportFailure(reason="ARTIFACT_UNSUPPORTED", message="no head")
    words = (repository, "--apply", "--address", rig.addresses.grpc)
    done = await imported(rig, lambda: in_a_process(*words), refusal)
    assert (done.returncode, done.stdout) == (4, "")
    said = "error street: MODEL_IMPORT_FAILED: street@1: ARTIFACT_UNSUPPORTED: no head"
    assert said in done.stderr.splitlines()


def test_the_plan_for_people(repository: Path) -> None:
    status, out = migrate(repository)
    assert status == 0
    assert "response_cache" in out
    assert "yolopool models batching street --device cpu --max-batch 8 --prefer 4,8" in out


def test_every_setting_of_triton_has_a_line() -> None:
    """Of the schema as its own client has it: in a process without our copies of its messages."""
    code = f"""{EVERY_SETTING}
from yolopool.migration.triton_plan import taken
from yolopool.migration.pbtxt import parse
from yolopool.migration.triton_config import TritonConfig, lines
told = 0
for path, text in texts(model_config_pb2.ModelConfig.DESCRIPTOR, ()):
    (line,) = lines(parse(text), taken(TritonConfig()))
    told += 1
    if "no setting of Triton" in line.becomes:
        print("UNKNOWN", path)
print(told)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    unknown = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("UNKNOWN")]
    assert sorted(unknown) == []
    assert int(done.stdout.split()[-1]) > 100
