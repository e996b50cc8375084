"""Repositories as people have them: what is taken, by which commands, and why not the rest."""

import shlex
import zipfile
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.core import TyperGroup

from yolopool.cli.main import app
from yolopool.client.model_records import Batching
from yolopool.errors import InvalidOption
from yolopool.migration import triton_config
from yolopool.migration.pbtxt import parse
from yolopool.migration.steps import (
    Load,
    ModelPlan,
    Register,
    SetBatching,
    SetPriority,
    SetResidency,
    command,
)
from yolopool.migration.triton_plan import our_name, plan
from yolopool.migration.triton_repository import read_repository
from yolopool.names import check_name

DETECTOR = """
name: "Street_YOLOv8"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "images" data_type: TYPE_FP32 dims: [ 3, 384, 640 ] } ]
output [ { name: "output0" data_type: TYPE_FP32 dims: [ 84, 5040 ] label_filename: "labels.txt" } ]
version_policy: { latest { num_versions: 2 } }
dynamic_batching {
  preferred_batch_size: [ 8, 4, 32 ]
  max_queue_delay_microseconds: 500
  preserve_ordering: true
  default_queue_policy { max_queue_size: 128 default_timeout_microseconds: 50000 }
}
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] rate_limiter { priority: 2 } } ]
optimization {
  priority: PRIORITY_MAX
  execution_accelerators { gpu_execution_accelerator: { name: "tensorrt" } }
}
model_warmup [ {
  name: "zeros" batch_size: 1
  inputs { key: "images" value: { dims: [ 3, 384, 640 ] zero_data: true } }
} ]
response_cache { enable: true }
"""
PREPROCESS = 'backend: "python"\nmax_batch_size: 16\n'
ENSEMBLE = """
platform: "ensemble"
ensemble_scheduling { step [
  { model_name: "letterbox" model_version: -1 },
  { model_name: "yolo" model_version: -1 input_map { key: "images" value: "letterboxed" } },
  { model_name: "suppress" model_version: -1 }
] }
"""


def write(root: Path, folder: str, config: str = "", **files: bytes | str) -> Path:
    """A model's folder; files by `1/model.onnx`, written as _1__model_onnx."""
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    if config:
        (place / "config.pbtxt").write_text(config)
    for name, content in files.items():
        path = place / name.removeprefix("_").replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def torch_file(path: Path, *, script: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", b"")
        if script:
            archive.writestr("best/code/__torch__.py", b"")


def planned(root: Path, **options: bool) -> dict[str, ModelPlan]:
    return {one.source: one for one in plan(read_repository(root), **options)}


def why(one: ModelPlan) -> str:
    """What is said of what is not taken."""
    return "\n".join(line.becomes for line in one.lines if not line.taken)


def test_a_detector_with_all_its_settings(tmp_path: Path) -> None:
    folder = write(
        tmp_path, "Street_YOLOv8", DETECTOR,
        _1__model_onnx="1", _2__model_onnx="2", _10__model_onnx="10", labels_txt="car\nperson\n",
    )  # fmt: skip
    (one,) = plan(read_repository(tmp_path))
    name, names = "street_yolov8", ("car", "person")
    assert one.steps == (
        Register(name, folder / "2" / "model.onnx", (384, 640), names),
        SetBatching(name, "cuda", Batching(16, (4, 8), 0.5, 128)),
        SetPriority(name, "interactive"),
        Register(name, folder / "10" / "model.onnx", (384, 640), names),
        Load(name, 2, pin=False),
    )
    said = {line.said.partition(" ")[0]: line for line in one.lines if line.said}
    assert "street_yolov8@2" in next(x.becomes for x in one.lines if x.place == "version 10")
    assert said["dynamic_batching.preferred_batch_size"].place == "config.pbtxt:9"
    left = [name for name, line in said.items() if not line.taken]
    assert left == [
        "dynamic_batching.preserve_ordering",
        "dynamic_batching.default_queue_policy.default_timeout_microseconds",
        "instance_group.rate_limiter",
        "optimization.execution_accelerators",
        "response_cache",
    ]
    assert [command(step) for step in one.steps][1:3] == [
        "yolopool models batching street_yolov8 --device cuda --max-batch 16 --prefer 4,8 "
        "--max-delay-ms 0.5 --queue 128",
        "yolopool models placement street_yolov8 --priority interactive",
    ]


def test_all_stay_loaded_where_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "a", "instance_group { kind: KIND_CPU }", _1__model_onnx="")
    write(tmp_path, "b", "instance_group { gpus: 0 gpus: 3 }", _1__model_onnx="")
    assert planned(tmp_path)["a"].steps[-1] == SetResidency("a", "normal", True)
    kept = planned(tmp_path, hot_standby=True)
    assert kept["a"].steps[-1] == SetResidency("a", "hot-standby", True)
    assert kept["b"].steps[-2:] == (SetResidency("b", "hot-standby", False), Load("b", 2, True))


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    folder = write(tmp_path, "yolo", _1__model_onnx="", _2__model_onnx="", _0__model_onnx="")
    (one,) = plan(read_repository(tmp_path))
    assert one.steps == (Register("yolo", folder / "2" / "model.onnx"),)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", ["3"]),
        ("version_policy { all {} }", ["1", "2", "3"]),
        ("version_policy { latest { num_versions: 2 } }", ["2", "3"]),
        ("version_policy { latest {} }", ["3"]),
        ("version_policy { specific { versions: [ 3, 1, 7 ] } }", ["1", "3"]),
    ],
)
def test_versions_that_are_served(tmp_path: Path, policy: str, served: list[str]) -> None:
    write(tmp_path, "yolo", policy, _1__model_onnx="", _2__model_onnx="", _3__model_onnx="")
    (one,) = plan(read_repository(tmp_path))
    paths = [step.path for step in one.steps if isinstance(step, Register)]
    assert [path.parent.name for path in paths] == served


def test_batching_of_what_triton_does_not_batch(tmp_path: Path) -> None:
    write(tmp_path, "one", "max_batch_size: 0", _1__model_onnx="")
    write(tmp_path, "many", "max_batch_size: 900\ndynamic_batching {}", _1__model_onnx="")
    plans = planned(tmp_path)
    assert not [step for step in plans["one"].steps if isinstance(step, SetBatching)]
    asked = [step for step in plans["many"].steps if isinstance(step, SetBatching)]
    assert [(step.device_kind, step.batching) for step in asked] == [
        ("cuda", Batching(256)),
        ("cpu", Batching(256)),
    ]


def test_the_graph_in_an_ensemble_is_served_under_its_name(tmp_path: Path) -> None:
    write(tmp_path, "street", ENSEMBLE, _1__note="")
    write(tmp_path, "letterbox", PREPROCESS, _1__model_py="")
    write(tmp_path, "suppress", PREPROCESS, _1__model_py="")
    folder = write(tmp_path, "yolo", "max_batch_size: 4", _1__model_onnx="")
    plans = planned(tmp_path)
    assert plans["yolo"].steps[0] == Register("street", folder / "1" / "model.onnx")
    assert (plans["street"].steps, why(plans["street"])) == ((), "")
    assert "Python backend is code" in why(plans["letterbox"])


def test_a_graph_that_two_call_keeps_its_name(tmp_path: Path) -> None:
    write(tmp_path, "street", ENSEMBLE, _1__note="")
    write(tmp_path, "road", ENSEMBLE, _1__note="")
    write(tmp_path, "yolo", _1__model_onnx="")
    plans = planned(tmp_path)
    assert plans["yolo"].model == "yolo"
    assert "ask for yolo itself" in why(plans["street"])


def test_a_script_that_calls_a_graph(tmp_path: Path) -> None:
    script = "request = pb_utils.InferenceRequest(model_name='yolo', inputs=[i])\n"
    write(tmp_path, "pipeline", 'backend: "python"', _1__model_py=script)
    write(tmp_path, "yolo", _1__model_onnx="")
    assert planned(tmp_path)["yolo"].model == "pipeline"


def test_a_checkpoint_beside_a_script_is_taken(tmp_path: Path) -> None:
    config = 'backend: "python" input { name: "jpeg" data_type: TYPE_STRING dims: 1 }'
    folder = write(tmp_path, "yolo", config, _1__model_py="YOLO('best.pt')")
    torch_file(folder / "1" / "best.pt", script=False)
    (one,) = plan(read_repository(tmp_path))
    assert one.steps == (Register("yolo", folder / "1" / "best.pt"),)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"_1__model_plan": ""}, "TensorRT engine is code for one GPU"),
        ({"_1__model_py": ""}, "Python backend is code"),
        ({"_1__model_xml": "", "_1__model_bin": ""}, "OpenVINO"),
        ({"_1__model_onnx__model_onnx": ""}, "save it as one file"),
        ({"_1__model_savedmodel__saved_model_pb": ""}, "TensorFlow"),
        ({"_1__readme": ""}, "no model file"),
    ],
)
def test_what_cannot_be_taken(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    write(tmp_path, "yolo", "max_batch_size: 1", **files)
    (one,) = plan(read_repository(tmp_path))
    assert one.steps == ()
    assert reason in why(one)


def test_torchscript_is_told_from_a_checkpoint(tmp_path: Path) -> None:
    torch_file(tmp_path / "yolo" / "1" / "model.pt", script=True)
    assert "TorchScript is a program" in why(planned(tmp_path)["yolo"])


def test_an_engine_with_its_onnx_beside_it(tmp_path: Path) -> None:
    config = 'platform: "tensorrt_plan" max_batch_size: 8'
    folder = write(tmp_path, "yolo", config, _1__model_plan="", _1__best_onnx="")
    assert planned(tmp_path)["yolo"].steps[0] == Register("yolo", folder / "1" / "best.onnx")


@pytest.mark.parametrize(
    ("inputs", "taken"),
    [
        ("dims: [ 3, 640, 640 ]", True),
        ("dims: [ 1, 3, 640, 640 ]", True),
        ("dims: [ -1, -1, -1 ]", True),
        ("format: FORMAT_NHWC dims: [ 640, 640, 3 ]", True),
        ("dims: [ 128 ]", False),
        ("dims: [ 20, 640, 640 ]", False),
    ],
)
def test_a_graph_of_images_by_its_inputs(tmp_path: Path, inputs: str, taken: bool) -> None:
    write(tmp_path, "yolo", f'input {{ name: "x" {inputs} }}', _1__model_onnx="")
    assert bool(planned(tmp_path)["yolo"].steps) == taken
    two = 'input { name: "x" dims: [ 3, 8, 8 ] } input { name: "y" dims: 2 }'
    write(tmp_path, "yolo", two, _1__model_onnx="")
    assert "2 tensors (x, y)" in why(planned(tmp_path)["yolo"])


def test_a_config_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    write(tmp_path, "a", "max_batch_size: {", _1__model_onnx="")
    write(tmp_path, "b", "max_batch_size: 2", _1__model_onnx="")
    plans = planned(tmp_path)
    assert "config.pbtxt can't be read: 1:" in why(plans["a"])
    assert plans["b"].steps


def test_two_folders_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "YOLO", _1__model_onnx="")
    write(tmp_path, "yolo", _1__model_onnx="")
    plans = planned(tmp_path)
    assert plans["YOLO"].steps
    assert "rename the folder" in why(plans["yolo"])


def test_labels_are_read_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")
    config = 'output { name: "o" label_filename: "../secret.txt" }'
    write(tmp_path / "models", "yolo", config, _1__model_onnx="")
    (step,) = planned(tmp_path / "models")["yolo"].steps
    assert isinstance(step, Register)
    assert step.class_names == ()


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no Triton model repository"):
        read_repository(tmp_path)


def test_each_command_is_one_of_the_command_line(tmp_path: Path) -> None:
    write(tmp_path, "yolo", DETECTOR, _1__model_onnx="", labels_txt="a car\nb\n")
    write(tmp_path, "cpu", "instance_group { kind: KIND_CPU }", _1__model_onnx="")
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    plans = plan(read_repository(tmp_path), hot_standby=True)
    steps = [step for one in plans for step in one.steps]
    assert {type(step) for step in steps} == {
        Register, SetBatching, SetPriority, SetResidency, Load,
    }  # fmt: skip
    for step in steps:
        program, first, second, *rest = shlex.split(command(step))
        assert program == "yolopool"
        models = group.commands[first]
        assert isinstance(models, TyperGroup)
        models.commands[second].make_context(second, rest)


@given(st.text(max_size=80))
def test_a_name_of_ours_is_made_of_any(name: str) -> None:
    ours = our_name(name)
    assert not ours or check_name(ours) == ours


@pytest.mark.parametrize("field", sorted(triton_config._WHY_NOT))
def test_each_setting_that_is_not_taken_has_its_line(field: str) -> None:
    *around, last = field.split(".")
    text = "".join(f"{name} {{ " for name in around) + f"{last}: 1" + " }" * len(around)
    (line,) = triton_config.lines(parse(text), {})
    assert (line.taken, line.said) == (False, f"{field} 1")
