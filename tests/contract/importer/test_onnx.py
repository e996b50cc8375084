"""ONNX files: imported in the sandboxed child without being run, then run by ONNX Runtime, and
their answers read as the pack says.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from importer import child
from importer.onnx_import.graph import NEWEST_IR, NEWEST_OPSET
from importer.processes import fresh_child
from tests import onnx_graphs
from tests.contract.backend.test_layouts import Boxes, seen
from tests.contract.imports import import_in_child, refusal_of
from tests.lying_graphs import TRUE
from tests.models import Zoo, build_woken, import_checkpoint, location, picture
from worker.backends.onnx.layouts import Final, decode
from worker.packs import manifest as pack_rules
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from yolopool.errors import PackInvalid
from yolopool.v1 import types_pb2
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.types_pb2 import (
    OUTPUT_LAYOUT_END_TO_END,
    OUTPUT_LAYOUT_OBJECTNESS,
    OUTPUT_LAYOUT_PAIR,
    OUTPUT_LAYOUT_PLAIN,
    VersionSettings,
)

NAMES = ("circle", "square", "triangle")
OF_THREE = child.Architecture("", NAMES)
CELLS = 40**2 + 20**2 + 10**2  # of 320 pixels
NAMED = {"names": str(dict(enumerate(NAMES))), "stride": "32"}
V8 = {**NAMED, "task": "detect", "imgsz": "[320, 320]", "args": "{'nms': False}"}
FINAL = {**V8, "end2end": "True"}


def rows_of(layout: "types_pb2.OutputLayout.ValueType") -> int:
    return {OUTPUT_LAYOUT_PLAIN: CELLS, OUTPUT_LAYOUT_END_TO_END: 300}.get(layout, 3 * CELLS)


def outputs_of(layout: "types_pb2.OutputLayout.ValueType") -> dict[str, Any]:
    """Known boxes as a graph of the layout gives them."""
    boxes = Boxes(5, 1, rows_of(layout), len(NAMES))
    return dict(zip(("output", "confs"), boxes.answer(layout), strict=False))


async def pack_of(path: Path, folder: Path, **changes: Any) -> Pack:
    await import_in_child(path, folder / "pack", **changes)
    return PackStore(folder).fetch(location(folder / "pack"))


def answer_of(pack: Pack, folder: Path, image: Any) -> Any:
    """What ONNX Runtime makes of the pack's bytes, read as its manifest says."""
    graph = pack.manifest.onnx
    (folder / "run.onnx").write_bytes(pack.weights.tobytes())
    found = onnx_graphs.run(folder / "run.onnx", image)
    names = [one.name for one in onnx.load(folder / "run.onnx").graph.output]
    wanted = [found[names.index(one.name)] for one in graph.outputs]
    size = image.shape[2:]
    return decode(graph.layout, wanted, len(pack.manifest.class_names), len(image), size)


# --- files made by hand ---------------------------------------------------------------------------

BY_HAND = {
    "YOLOv5": (OUTPUT_LAYOUT_OBJECTNESS, NAMED),
    "YOLOv7": (OUTPUT_LAYOUT_OBJECTNESS, {}),
    "YOLOv8": (OUTPUT_LAYOUT_PLAIN, V8),
    "YOLOv10": (OUTPUT_LAYOUT_END_TO_END, FINAL),
    "YOLOv4": (OUTPUT_LAYOUT_PAIR, {}),
}


@pytest.mark.parametrize("kind", BY_HAND)
async def test_known_boxes_come_out_of_every_layout(kind: str, tmp_path: Path) -> None:
    layout, metadata = BY_HAND[kind]
    model = onnx_graphs.answering(outputs_of(layout), metadata=metadata)
    path = onnx_graphs.write(model, tmp_path / "hand.onnx")
    of = child.Architecture() if metadata else OF_THREE
    pack = await pack_of(path, tmp_path, weights_of=of)
    manifest, graph = pack.manifest, pack.manifest.onnx
    assert (manifest.backend, graph.layout, manifest.settings.output_layout) == (
        "onnx", layout, layout,
    )  # fmt: skip
    assert tuple(manifest.class_names) == NAMES
    assert (graph.input, graph.dtype, graph.batch, graph.height, graph.width, graph.opset) == (
        "images", "float32", 1, 320, 320, 17,
    )  # fmt: skip
    assert graph.scale == pytest.approx(1 / 255)
    assert manifest.settings.shape_policy == types_pb2.SHAPE_POLICY_SQUARE
    assert manifest.stride == 32
    assert pack.weights.tobytes() == path.read_bytes()
    found = answer_of(pack, tmp_path, np.zeros((1, 3, 320, 320), np.float32))
    boxes = Boxes(5, 1, rows_of(layout), len(NAMES))
    scale = np.array([320 / 416, 1] * 2) if layout == OUTPUT_LAYOUT_PAIR else 1
    rows = seen(found, 0)
    np.testing.assert_allclose(rows[:, :4], boxes.corners[0] * scale, atol=1e-3)
    np.testing.assert_allclose(rows[:, 4], boxes.score[0], atol=1e-6)
    np.testing.assert_array_equal(rows[:, 5], boxes.class_id[0])


async def test_free_sizes_stay_free(tmp_path: Path) -> None:
    path = onnx_graphs.write(TRUE["uint8"].model(), tmp_path / "free.onnx")
    pack = await pack_of(path, tmp_path, settings=VersionSettings(image_size=300))
    graph = pack.manifest.onnx
    assert (graph.batch, graph.height, graph.width) == (0, 0, 0)
    assert (graph.dtype, graph.scale) == ("uint8", 1)
    assert list(graph.outputs[0].shape) == [0, 7, 0]
    assert pack.manifest.settings.image_size == 320
    assert pack.manifest.settings.shape_policy == types_pb2.SHAPE_POLICY_RECT


async def test_a_layout_that_is_said_is_taken(tmp_path: Path) -> None:
    model = onnx_graphs.answering(outputs_of(OUTPUT_LAYOUT_END_TO_END), metadata=NAMED)
    path = onnx_graphs.write(model, tmp_path / "unclear.onnx")
    refusal = await refusal_of(path, tmp_path / "one")
    assert "--layout end-to-end" in refusal.message
    said = VersionSettings(output_layout=OUTPUT_LAYOUT_END_TO_END)
    assert (await pack_of(path, tmp_path, settings=said)).manifest.onnx.layout
    wrong = VersionSettings(output_layout=OUTPUT_LAYOUT_PLAIN)
    assert (
        "not of the layout plain"
        in (await refusal_of(path, tmp_path / "two", settings=wrong)).message
    )


def test_the_command_line_takes_names_and_layout(tmp_path: Path) -> None:
    model = onnx_graphs.answering(outputs_of(OUTPUT_LAYOUT_END_TO_END))
    path = onnx_graphs.write(model, tmp_path / "final.onnx")
    report = import_checkpoint(path, tmp_path / "packs", f"--names={','.join(NAMES)}")
    assert report["reason"] == "ARTIFACT_UNSUPPORTED"
    flags = (f"--names={','.join(NAMES)}", "--layout=end-to-end")
    report = import_checkpoint(path, tmp_path / "packs", *flags)
    assert report["architecture"] == "onnx-end-to-end-detect"
    assert report["settings"]["output_layout"] == "OUTPUT_LAYOUT_END_TO_END"


# --- files of the library's exporter --------------------------------------------------------------


def export(
    model: Any, path: Path, *, free: bool, shape: tuple[int, int, int] = (3, 320, 320)
) -> None:
    """As the library's export does it, with the metadata that it writes; shape: of an image."""
    head = model.model[-1]
    head.export, head.dynamic, head.format = True, free, "onnx"
    image = torch.zeros(1, *shape)
    with torch.no_grad():
        model(image)  # anchors
    names = {0: "batch", 2: "height", 3: "width"}
    rows = {0: "batch", 1 if head.end2end else 2: "anchors"}
    torch.onnx.export(
        model, (image,), str(path), input_names=["images"], output_names=["output0"],
        opset_version=17, dynamo=False,
        dynamic_axes={"images": names, "output0": rows} if free else None,
    )  # fmt: skip
    made = onnx.load(path)
    metadata = {"task": "detect", "stride": "32", "names": str(model.names)}
    metadata["imgsz"] = str([*shape[1:]])
    metadata |= {"args": str({"nms": False, "dynamic": free}), "end2end": str(head.end2end)}
    helper.set_model_props(made, metadata)
    onnx.save(made, path)


@pytest.mark.matrix(sample=1)
@pytest.mark.filterwarnings("ignore")  # of torch's exporter, which is on its way out
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("name", ["yolov8n", "yolo26n-end-to-end"])
async def test_an_export_gives_what_the_model_gives(name: str, free: bool, tmp_path: Path) -> None:
    end_to_end = name.endswith("end-to-end")
    model = build_woken(f"{name.partition('-')[0]}.yaml", 7, end_to_end_only=end_to_end)
    model = model.fuse(verbose=False).eval()
    pixels = np.ascontiguousarray(picture(1, 320, 320)[..., ::-1].transpose(2, 0, 1))
    image = pixels[None].astype(np.float32) / 255
    with torch.inference_mode():
        expected = model(torch.from_numpy(image))[0].numpy()
    export(model, tmp_path / "export.onnx", free=free)
    pack = await pack_of(tmp_path / "export.onnx", tmp_path)
    assert pack.manifest.onnx.layout == (
        OUTPUT_LAYOUT_END_TO_END if end_to_end else OUTPUT_LAYOUT_PLAIN
    )
    assert pack.manifest.stride == 32
    # 8.7 GFLOPs of yolov8n at 640, 48 MB an image and megapixel of the importer's own count.
    assert 1 < pack.manifest.gflops < 3
    assert 20e6 < pack.manifest.activation_bytes_per_megapixel < 200e6
    assert 2e6 < pack.manifest.parameters < 4e6
    found = answer_of(pack, tmp_path, image)
    rows = seen(found, 0)
    if isinstance(found, Final):
        sure = expected[0][expected[0][:, 4] > 0.25]
        # Rows of nearly one score change places.
        apart = np.abs(sure[:, None] - rows[None]).max(2).min(1)
        assert apart.max() < 2e-3
    else:
        sure = np.flatnonzero(expected[0, 4:].max(0) > 0.25)
        np.testing.assert_allclose(found.boxes[0][:, sure], expected[0, :4, sure].T, atol=2e-3)
        np.testing.assert_array_equal(rows[sure, 5], expected[0, 4:, sure].argmax(1))
    assert len(sure) >= 30


# --- what is refused ------------------------------------------------------------------------------


def plain(**changes: Any) -> onnx.ModelProto:
    settings = {"metadata": V8} | changes
    return onnx_graphs.answering(outputs_of(OUTPUT_LAYOUT_PLAIN), **settings)


def edited(change: Any) -> bytes:
    model = plain()
    change(model)
    return model.SerializeToString()


def keep_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


def keep_a_constant_elsewhere(model: onnx.ModelProto) -> None:
    """Deep within: in a constant of a branch."""
    tensor = helper.make_tensor("far", TensorProto.FLOAT, [1], [0.0])
    tensor.external_data.add(key="location", value="secret")
    constant = helper.make_node("Constant", [], ["kept"], value=tensor)
    given = helper.make_tensor_value_info("kept", TensorProto.FLOAT, [1])
    branch = helper.make_graph([constant], "branch", [], [given])
    model.graph.node.append(
        helper.make_node("If", ["which"], ["unused"], then_branch=branch, else_branch=branch)
    )


def spoil(tensor: TensorProto) -> None:
    values = numpy_helper.to_array(tensor).copy()
    values.flat[7] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def call_a_plugin(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("trt.plugins", 1))
    model.graph.node[0].op_type, model.graph.node[0].domain = "EfficientNMS_TRT", "trt.plugins"


def bring_a_function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("mine", "Twice", ["x"], ["x"], [], [helper.make_opsetid("", 17)])
    )


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "cut short": (plain().SerializeToString()[:-5000], "ARTIFACT_INVALID", "cut short"),
    "no graph": (b"\x08\x08", "ARTIFACT_INVALID", "no graph"),
    "other files": (edited(keep_elsewhere), "ARTIFACT_UNSAFE", "one file"),
    "constants elsewhere": (edited(keep_a_constant_elsewhere), "ARTIFACT_UNSAFE", "one file"),
    "a plugin": (edited(call_a_plugin), "ARTIFACT_UNSUPPORTED", "trt.plugins.EfficientNMS_TRT"),
    "a function": (edited(bring_a_function), "ARTIFACT_UNSUPPORTED", "functions of its own"),
    "unknown operator": (
        edited(lambda m: setattr(m.graph.node[0], "op_type", "Guess")),
        "ARTIFACT_INVALID",
        "Guess",
    ),
    "old opset": (
        edited(lambda m: setattr(m.opset_import[0], "version", 7)),
        "ARTIFACT_UNSUPPORTED",
        "opset",
    ),
    "future opset": (
        edited(lambda m: setattr(m.opset_import[0], "version", 999)),
        "ARTIFACT_UNSUPPORTED",
        "opset",
    ),
    "channels last": (
        plain(size=(1, 320, 320, 3)).SerializeToString(),
        "ARTIFACT_UNSUPPORTED",
        "channels first",
    ),
    "doubles": (
        plain(dtype=TensorProto.DOUBLE).SerializeToString(),
        "ARTIFACT_UNSUPPORTED",
        "DOUBLE",
    ),
    "one side free": (
        plain(size=(1, 3, 320, "width")).SerializeToString(),
        "ARTIFACT_UNSUPPORTED",
        "both sides",
    ),
    "half strides": (
        plain(size=(1, 3, 300, 300)).SerializeToString(),
        "ARTIFACT_UNSUPPORTED",
        "whole strides",
    ),
    "four channels": (
        plain(size=(1, 4, 320, 320)).SerializeToString(),
        "ARTIFACT_UNSUPPORTED",
        "images of 1 or 3 channels",
    ),
    "not finite": (
        edited(lambda m: spoil(m.graph.initializer[0])),
        "ARTIFACT_INVALID",
        "1 in output.values",
    ),
    "gaps in the names": (
        plain(metadata={**V8, "names": "{0: 'a', 2: 'b', 3: 'c'}"}).SerializeToString(),
        "ARTIFACT_INVALID",
        "--names",
    ),
    "two images": (
        edited(lambda m: m.graph.input.append(helper.make_tensor_value_info("b", 1, [1]))),
        "ARTIFACT_UNSUPPORTED",
        "2 inputs",
    ),
    "another task": (
        plain(metadata={**V8, "task": "segment"}).SerializeToString(),
        "ARTIFACT_UNSUPPORTED",
        "segment",
    ),
    "RT-DETR": (
        plain(metadata={**V8, "head": "RTDETRDecoder"}).SerializeToString(),
        "ARTIFACT_UNSUPPORTED",
        "stretches",
    ),
    "no names": (plain(metadata={}).SerializeToString(), "ARTIFACT_INVALID", "--names"),
    "names that are code": (
        plain(metadata={**V8, "names": "__import__('os').abort()"}).SerializeToString(),
        "ARTIFACT_INVALID",
        "metadata names",
    ),
}


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("kind", REFUSED)
async def test_what_is_refused_says_what_to_do(kind: str, tmp_path: Path) -> None:
    data, reason, words = REFUSED[kind]
    (tmp_path / "bad.onnx").write_bytes(data)
    refusal = await refusal_of(tmp_path / "bad.onnx", tmp_path / "work")
    assert (refusal.reason, words in refusal.message) == (reason, True), refusal.message


ASKED: dict[str, tuple[dict[str, Any], child.Architecture, str]] = {
    "another size": ({"image_size": 640}, child.Architecture(), "320x320 pixels alone"),
    "other sizes": ({"image_sizes": [320, 640]}, child.Architecture(), "320x320 pixels alone"),
    "a rectangle": (
        {"image_height": 320, "image_width": 640}, child.Architecture(), "640x320 were asked for",
    ),
    "other shapes": (
        {"shape_policy": types_pb2.SHAPE_POLICY_RECT}, child.Architecture(), "other shapes",
    ),
    "another head": (
        {"head_mode": types_pb2.HEAD_MODE_END_TO_END}, child.Architecture(), "--head",
    ),
    "other names": ({}, child.Architecture("", ("one", "two")), "the file has 3"),
    "an architecture": ({}, child.Architecture("yolov8n.yaml", NAMES), "--arch"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ASKED)
async def test_what_a_file_can_not_do_is_not_asked_of_it(kind: str, tmp_path: Path) -> None:
    settings, of, words = ASKED[kind]
    path = onnx_graphs.write(plain(), tmp_path / "a.onnx")
    refusal = await refusal_of(
        path, tmp_path / "work", settings=VersionSettings(**settings), weights_of=of
    )
    assert words in refusal.message


@pytest.mark.parametrize(("ir", "opset"), [(8, 17), (NEWEST_IR, NEWEST_OPSET), (14, 17)])
async def test_a_file_is_brought_to_what_runtimes_take(ir: int, opset: int, tmp_path: Path) -> None:
    model = plain(opset=opset)
    model.ir_version = ir
    path = onnx_graphs.write(model, tmp_path / "new.onnx")
    pack = await pack_of(path, tmp_path)
    kept = onnx.load_from_string(pack.weights.tobytes())
    assert kept.ir_version == min(ir, NEWEST_IR)
    assert kept.graph == model.graph
    assert len(answer_of(pack, tmp_path, np.zeros((1, 3, 320, 320), np.float32)).confidence)


def test_the_bounds_are_those_of_the_runtime_that_is_installed() -> None:
    """ONNX Runtime does not tell them; it is asked with the smallest of graphs."""
    import onnxruntime

    def takes(ir: int, opset: int) -> bool:
        model = onnx_graphs.answering({"output": np.zeros((1, 7, 1))}, opset=opset)
        model.ir_version = ir
        try:
            onnxruntime.InferenceSession(model.SerializeToString())
        except Exception:
            return False
        return True

    assert takes(NEWEST_IR, NEWEST_OPSET)
    assert not takes(NEWEST_IR + 1, 17)
    assert not takes(8, NEWEST_OPSET + 1)


async def test_a_newer_type_of_numbers_is_not_lowered(tmp_path: Path) -> None:
    model = plain()
    model.ir_version = NEWEST_IR + 1
    model.graph.initializer.add(name="odd", data_type=99, dims=[0])
    refusal = await refusal_of(onnx_graphs.write(model, tmp_path / "new.onnx"), tmp_path / "work")
    assert refusal.reason == "ARTIFACT_UNSUPPORTED"
    assert f"served are versions up to {NEWEST_IR}" in refusal.message


async def test_names_that_are_no_text_are_read(tmp_path: Path) -> None:
    model = plain(metadata={**V8, "names": "{'0': 0, '1': True, '2': 'c'}"})
    pack = await pack_of(onnx_graphs.write(model, tmp_path / "a.onnx"), tmp_path)
    assert tuple(pack.manifest.class_names) == ("0", "True", "c")


async def test_names_that_are_said_win_over_wrong_ones(tmp_path: Path) -> None:
    model = plain(metadata={**V8, "names": "{0: 'a', 1: 'b'}"})
    path = onnx_graphs.write(model, tmp_path / "a.onnx")
    assert "2 classes" in (await refusal_of(path, tmp_path / "work")).message
    pack = await pack_of(path, tmp_path, weights_of=OF_THREE)
    assert tuple(pack.manifest.class_names) == NAMES


async def test_a_checkpoint_has_no_layout(zoo: Zoo, tmp_path: Path) -> None:
    said = VersionSettings(output_layout=OUTPUT_LAYOUT_PLAIN)
    refusal = await refusal_of(zoo.checkpoint("shapes"), tmp_path / "work", settings=said)
    assert "--layout has no meaning" in refusal.message


async def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "broken" / "onnx-0.dist-info").mkdir(parents=True)  # else it is not on the path
    (tmp_path / "broken" / "onnx.py").write_text("raise ImportError('No module named onnx')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "broken"), *sys.path])
    path = onnx_graphs.write(plain(), tmp_path / "a.onnx")
    refusal = await refusal_of(path, tmp_path / "work", start=fresh_child.start)
    assert "yolopool[onnx]" in refusal.message


async def test_a_worker_refuses_other_sizes_of_a_graph_of_one(tmp_path: Path) -> None:
    pack = await pack_of(onnx_graphs.write(plain(), tmp_path / "a.onnx"), tmp_path)
    forged = PackManifest.FromString(pack.manifest.SerializeToString())
    forged.settings.image_sizes.append(640)
    with pytest.raises(PackInvalid, match="320 pixels alone"):
        pack_rules.check_manifest(forged)
