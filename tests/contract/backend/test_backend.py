"""What every backend promises (worker.backends.base), run on each of them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import U8, Zoo, picture
from tests.precisions import openvino_computes_bf16, torch_computes_bf16
from worker.backends.base import Backend, LoadedModel, run
from worker.backends.composite import CompositeBackend
from worker.backends.onnx.onnxruntime_backend import OnnxRuntime
from worker.backends.onnx.openvino_backend import OpenVino
from worker.backends.pytorch.backend import TorchBackend
from worker.backends.simulated import SimulatedBackend
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import Candidates, NmsOptions
from worker.preprocess import letterbox
from yolopool.errors import InvalidOption, LoadFailed, OutOfMemory, YolopoolError
from yolopool.vocabulary import ShapePolicy

MIB = 1024**2


@dataclass(frozen=True)
class BackendCase:
    """One backend under test, and what it runs: packs of `runs` (torch for all that read no
    graph). `tolerance` is in pixels, between a batch and single images.
    """

    make: Callable[[], Backend]
    name: str
    kind: str
    tolerance: float = 0.0
    runs: str = "torch"


def on_the_cpu() -> CompositeBackend:
    """As a worker has it."""
    return CompositeBackend(TorchBackend("cpu", 1), OnnxRuntime("cpu", 1), OpenVino(1))


CASES = {
    "torch-cpu": BackendCase(lambda: TorchBackend("cpu", 1), "torch", "cpu", 1e-3),
    "torch-cuda": BackendCase(lambda: TorchBackend("cuda:0"), "torch", "cuda", 1e-2),
    "torch-cuda-graphs": BackendCase(
        lambda: TorchBackend("cuda:0", graph_bytes=512 * MIB), "torch", "cuda", 1e-2
    ),
    "torch-of-several": BackendCase(on_the_cpu, "torch", "cpu", 1e-3),
    "onnx-cpu": BackendCase(on_the_cpu, "torch", "cpu", 1e-3, "onnx"),
    "openvino-cpu": BackendCase(on_the_cpu, "torch", "cpu", 1e-3, "openvino"),
    "simulated": BackendCase(
        lambda: SimulatedBackend(0, 1024 * MIB, sleep=lambda _: None), "simulated", "sim"
    ),
}


@pytest.fixture(
    params=[
        "torch-cpu",
        pytest.param("torch-cuda", marks=pytest.mark.gpu),
        pytest.param("torch-cuda-graphs", marks=pytest.mark.gpu),
        "torch-of-several",
        "onnx-cpu",
        "openvino-cpu",
        "simulated",
    ]
)
def backend_case(request: pytest.FixtureRequest) -> BackendCase:
    if request.param.startswith("torch-cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return CASES[request.param]


@pytest.fixture
def backend(backend_case: BackendCase) -> Iterator[Backend]:
    backend = backend_case.make()
    backend.open()
    yield backend
    backend.close()


@pytest.fixture
def pack(backend_case: BackendCase, zoo: Zoo, tmp_path: Path) -> Iterator[Pack]:
    pack = PackStore(tmp_path).fetch(zoo.built("shapes", backend_case.runs))
    yield pack
    pack.close()


@pytest.fixture
def torch_pack(zoo: Zoo, tmp_path: Path) -> Iterator[Pack]:
    pack = PackStore(tmp_path).fetch(zoo.pack("shapes"))
    yield pack
    pack.close()


def boxed(seed: int, height: int = 320, width: int = 320) -> U8:
    image = picture(seed, height, width)
    return letterbox.letterbox(image, 320, 32, ShapePolicy.RECT).image


def options(pack: Pack, confidence: float = 0.25, most: int = 300) -> NmsOptions:
    return NmsOptions((confidence,) * len(pack.manifest.class_names), 0.7, most, False)


def assert_well_formed(found: Candidates, asked: NmsOptions) -> None:
    count = len(found.confidence)
    assert count <= asked.max_detections
    assert found.xyxy.shape == (count, 4)
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert found.class_id.shape == (count,)
    assert found.class_id.dtype == np.int64
    assert np.all(np.diff(found.confidence) <= 0)
    thresholds = np.asarray(asked.class_confidence, np.float32)
    assert np.all(found.confidence > thresholds[found.class_id])


def test_says_what_it_is(backend_case: BackendCase, backend: Backend) -> None:
    assert backend.name == backend_case.name
    assert backend.device_kind == backend_case.kind
    assert backend.device_name


def test_opening_measures_the_context(backend_case: BackendCase) -> None:
    backend = backend_case.make()
    context_bytes = backend.open()
    memory = backend.memory()
    backend.close()
    assert 0 < context_bytes <= memory.total_bytes
    assert memory.used_bytes > 0


def test_finds_what_is_there(backend: Backend, pack: Pack) -> None:
    model, asked = backend.load(pack, "fp32"), options(pack)
    result = run(model, [boxed(0)], [asked])
    (found,) = result.candidates
    assert len(found.confidence)
    assert_well_formed(found, asked)
    model.close()


def test_a_pass_says_its_times(backend: Backend, pack: Pack) -> None:
    model = backend.load(pack, "fp32")
    result = run(model, [boxed(0)], [options(pack)])
    assert min(result.transfer_s, result.inference_s, result.postprocess_s) >= 0
    assert result.inference_s > 0
    model.close()


def test_a_batch_gives_what_single_images_give(
    backend_case: BackendCase, backend: Backend, pack: Pack
) -> None:
    model = backend.load(pack, "fp32")
    images = [boxed(seed) for seed in range(4)]
    together = run(model, images, [options(pack)] * 4).candidates
    for image, found in zip(images, together, strict=True):
        (alone,) = run(model, [image], [options(pack)]).candidates
        np.testing.assert_array_equal(found.class_id, alone.class_id)
        np.testing.assert_allclose(found.xyxy, alone.xyxy, rtol=0, atol=backend_case.tolerance)
        np.testing.assert_allclose(found.confidence, alone.confidence, rtol=0, atol=1e-4)
    model.close()


def test_different_pixels_give_different_answers(backend: Backend, pack: Pack) -> None:
    model = backend.load(pack, "fp32")
    results = run(model, [boxed(0), boxed(1)], [options(pack)] * 2).candidates
    assert results[0].confidence.tolist() != results[1].confidence.tolist()
    model.close()


def test_repeats_give_the_same(backend: Backend, pack: Pack) -> None:
    model = backend.load(pack, "fp32")
    first, second = (run(model, [boxed(3)], [options(pack)]).candidates[0] for _ in range(2))
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    np.testing.assert_array_equal(first.confidence, second.confidence)
    model.close()


def test_shapes_may_alternate(backend: Backend, pack: Pack) -> None:
    model = backend.load(pack, "fp32")
    wide, square = boxed(0, 200, 320), boxed(0)
    (before,) = run(model, [square], [options(pack)]).candidates
    (other,) = run(model, [wide], [options(pack)]).candidates
    (after,) = run(model, [square], [options(pack)]).candidates
    np.testing.assert_array_equal(before.xyxy, after.xyxy)
    assert np.all(other.xyxy[:, 3] <= wide.shape[0] + 32)
    model.close()


def test_options_are_of_each_image(backend: Backend, pack: Pack) -> None:
    model, image = backend.load(pack, "fp32"), boxed(0)
    asked = [options(pack), options(pack, most=1), options(pack, confidence=2.0)]
    found = run(model, [image] * 3, asked).candidates
    for one, wanted in zip(found, asked, strict=True):
        assert_well_formed(one, wanted)
    assert len(found[1].confidence) == 1
    assert len(found[2].confidence) == 0
    model.close()


def test_a_class_that_is_not_asked_for_is_not_given(backend: Backend, pack: Pack) -> None:
    model, asked = backend.load(pack, "fp32"), options(pack)
    (everything,) = run(model, [boxed(0)], [asked]).candidates
    unwanted = int(everything.class_id[0])
    thresholds = tuple(
        2.0 if index == unwanted else value for index, value in enumerate(asked.class_confidence)
    )
    (rest,) = run(model, [boxed(0)], [replace(asked, class_confidence=thresholds)]).candidates
    assert unwanted not in rest.class_id
    model.close()


def test_weights_are_counted(
    backend_case: BackendCase, backend: Backend, pack: Pack, zoo: Zoo, tmp_path: Path
) -> None:
    for _ in range(3):  # the second is served from what the first left in the allocator
        model = backend.load(pack, "fp32")
        assert model.weights_bytes == pack.manifest.weights_bytes
        if backend_case.runs == "torch":
            assert model.private_bytes == 0
        else:
            assert 0 < model.private_bytes < 4 * model.weights_bytes
        model.close()


def test_says_what_it_makes_of_a_pack(
    backend_case: BackendCase, backend: Backend, pack: Pack
) -> None:
    of_graph = backend_case.runs != "torch"
    made = (backend_case.runs, "fp32") if of_graph else (backend_case.name, "bf16")
    assert backend.variant(pack.manifest, "bf16") == made


def test_workspace_grows_with_pixels_and_images(backend: Backend, pack: Pack) -> None:
    model = backend.load(pack, "fp32")
    one = model.workspace_bytes((320, 320), 1)
    assert one > 320 * 320 * 3
    assert model.workspace_bytes((320, 320), 4) == pytest.approx(4 * one, rel=0.01)
    assert model.workspace_bytes((640, 640), 1) == pytest.approx(4 * one, rel=0.01)
    model.close()


def test_two_models_do_not_mix(
    backend_case: BackendCase, backend: Backend, pack: Pack, zoo: Zoo, tmp_path: Path
) -> None:
    other_pack = PackStore(tmp_path).fetch(zoo.built("yolov8n", backend_case.runs))
    model, other = backend.load(pack, "fp32"), backend.load(other_pack, "fp32")
    (before,) = run(model, [boxed(0)], [options(pack)]).candidates
    run(other, [boxed(0)], [options(other_pack)])
    (after,) = run(model, [boxed(0)], [options(pack)]).candidates
    np.testing.assert_array_equal(before.xyxy, after.xyxy)
    other.close()
    other_pack.close()
    (last,) = run(model, [boxed(0)], [options(pack)]).candidates
    np.testing.assert_array_equal(before.xyxy, last.xyxy)
    model.close()


def test_closing_gives_the_weights_back(
    backend_case: BackendCase, backend: Backend, zoo: Zoo, tmp_path: Path
) -> None:
    door = PackStore(tmp_path)

    def load_and_drop() -> None:
        pack = door.fetch(zoo.built("yolov8n", backend_case.runs))
        model = backend.load(pack, "fp32")
        run(model, [boxed(0)], [options(pack)])
        model.close()
        pack.close()

    for _ in range(3):
        load_and_drop()  # what the first passes of a shape leave in allocators
    before = backend.memory().used_bytes
    for _ in range(6):
        load_and_drop()
    # Six models of 13 MB went through. Allocators keep as much as one of them now and then.
    assert backend.memory().used_bytes - before < 24 * MIB


def test_closing_twice_is_closing_once(backend: Backend, pack: Pack) -> None:
    model = backend.load(pack, "fp32")
    model.close()
    model.close()
    with pytest.raises((ValueError, YolopoolError)):
        run(model, [boxed(0)], [options(pack)])


def test_a_model_can_be_loaded_again(backend: Backend, pack: Pack) -> None:
    first = backend.load(pack, "fp32")
    (before,) = run(first, [boxed(0)], [options(pack)]).candidates
    first.close()
    second = backend.load(pack, "fp32")
    (after,) = run(second, [boxed(0)], [options(pack)]).candidates
    np.testing.assert_array_equal(before.xyxy, after.xyxy)
    second.close()


def test_an_unknown_precision_is_refused(backend: Backend, pack: Pack) -> None:
    with pytest.raises(InvalidOption, match="fp32"):
        backend.load(pack, "int4")


def test_nothing_is_reported_to_the_makers_of_a_runtime() -> None:
    code = """
import sys
from worker.backends.onnx import openvino_backend
assert openvino_backend._library().Core().available_devices
print([name for name in sys.modules if name.startswith("openvino_telemetry.")])
"""
    users = {name: text for name, text in os.environ.items() if name != "CI"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=users)
    assert done.stdout == "[]\n"


def test_bf16_finds_the_same_boxes_within_a_tolerance(
    backend_case: BackendCase, backend: Backend, pack: Pack, zoo: Zoo, tmp_path: Path
) -> None:
    """On the demo's model: every box above the threshold by 0.05 is there, of its class, within
    2 pixels and 0.05 of confidence. A device that does not compute in bf16 refuses and says so.
    """
    if backend_case.name == "simulated":
        with pytest.raises(InvalidOption, match="fp32"):
            backend.load(pack, "bf16")
        return
    if backend_case.runs == "onnx":
        same = backend.load(pack, "bf16")  # what a worker computes in is of packs of torch
        assert_found_again(backend.load(pack, "fp32"), same, pack, pixels=0, confidence=0)
        return
    if backend_case.runs == "openvino":
        other_pack = PackStore(tmp_path / "bf16").fetch(zoo.built("shapes", "openvino", "bf16"))
        assert backend.variant(other_pack.manifest, "fp32") == ("openvino", "bf16")
        if not openvino_computes_bf16():
            with pytest.raises(LoadFailed, match=r"does not compute in bf16.*in fp32"):
                backend.load(other_pack, "fp32")
            return
        exact, reduced = backend.load(pack, "fp32"), backend.load(other_pack, "fp32")
        assert_found_again(exact, reduced, pack, pixels=2, confidence=0.05)
        return
    if not torch_computes_bf16(backend_case.kind):
        with pytest.raises(InvalidOption, match=r"'bf16' is not computed on this cpu.*use fp32"):
            backend.load(pack, "bf16")
        return
    exact, reduced = backend.load(pack, "fp32"), backend.load(pack, "bf16")
    assert reduced.weights_bytes < 0.51 * exact.weights_bytes
    assert reduced.workspace_bytes((320, 320), 2) < exact.workspace_bytes((320, 320), 2)
    assert_found_again(exact, reduced, pack, pixels=2, confidence=0.05)
    exact.close()
    # Its weights are its own.
    assert not reduced.uses_host_memory
    pack.close()
    assert len(run(reduced, [boxed(0)], [options(pack)]).candidates) == 1
    reduced.close()


def assert_found_again(
    exact: LoadedModel, reduced: LoadedModel, pack: Pack, pixels: float, confidence: float
) -> None:
    for seed in range(6):
        image = [boxed(seed)]
        (left,) = run(exact, image, [options(pack)]).candidates
        (right,) = run(reduced, image, [options(pack, confidence=0.2)]).candidates
        clear = left.confidence > 0.3
        assert clear.any()
        for box, sure, class_id in zip(
            left.xyxy[clear], left.confidence[clear], left.class_id[clear], strict=True
        ):
            away = np.abs(right.xyxy - box).max(1) + 1e3 * (right.class_id != class_id)
            nearest = int(away.argmin())
            assert away[nearest] <= pixels
            assert abs(right.confidence[nearest] - sure) <= confidence


def test_a_cpu_does_not_compute_in_fp16(torch_pack: Pack) -> None:
    backend = TorchBackend("cpu", 1)
    backend.open()
    with pytest.raises(InvalidOption, match=r"fp16.*use fp32"):
        backend.load(torch_pack, "fp16")
    backend.close()


def test_what_reads_host_memory_says_so(
    backend_case: BackendCase, backend: Backend, pack: Pack
) -> None:
    model = backend.load(pack, "fp32")
    assert model.uses_host_memory == (backend_case.kind == "cpu" and backend_case.runs == "torch")
    model.close()


def test_models_of_one_architecture_take_turns(
    backend_case: BackendCase, backend: Backend, pack: Pack, zoo: Zoo, tmp_path: Path
) -> None:
    """Often enough that their passes are captured, where they are: the same graph then runs with
    the weights of the one and of the other, and of one that came after.
    """
    other_pack = PackStore(tmp_path / "other").fetch(zoo.built("shapes", backend_case.runs))
    if backend_case.runs == "torch":
        with torch.inference_mode():
            flipped = torch.frombuffer(other_pack.weights_buffer, dtype=torch.float32)
            flipped[: len(flipped) // 50] *= 0.5
    model, other = backend.load(pack, "fp32"), backend.load(other_pack, "fp32")
    first = [run(one, [boxed(0)], [options(pack)]).candidates[0] for one in (model, other)]
    for _ in range(6):
        for one, wanted in zip((model, other), first, strict=True):
            (found,) = run(one, [boxed(0)], [options(pack)]).candidates
            np.testing.assert_array_equal(found.class_id, wanted.class_id)
            np.testing.assert_allclose(found.xyxy, wanted.xyxy, rtol=0, atol=1e-2)
    other.close()
    (found,) = run(model, [boxed(0)], [options(pack)]).candidates
    np.testing.assert_allclose(found.xyxy, first[0].xyxy, rtol=0, atol=1e-2)
    model.close()
    again = backend.load(pack, "fp32")
    (found,) = run(again, [boxed(0)], [options(pack)]).candidates
    np.testing.assert_allclose(found.xyxy, first[0].xyxy, rtol=0, atol=1e-2)
    again.close()
    other_pack.close()


def test_passes_may_be_under_way_together(backend: Backend, pack: Pack) -> None:
    """The second is run before the first is finished, of another shape, and finished elsewhere."""
    model = backend.load(pack, "fp32")
    wide, square = boxed(0, 200, 320), boxed(1)
    alone = [run(model, [image], [options(pack)]).candidates[0] for image in (wide, square)]
    first = model.stage([wide], [options(pack)]).forward()
    second = model.stage([square], [options(pack)]).forward()
    with ThreadPoolExecutor(1) as beside:
        found = [beside.submit(raw.finish).result().candidates[0] for raw in (first, second)]
    for one, other in zip(alone, found, strict=True):
        np.testing.assert_array_equal(one.xyxy, other.xyxy)
        np.testing.assert_array_equal(one.confidence, other.confidence)
    model.close()


def test_torch_maps_a_failed_allocation(torch_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real message of torch's CPU allocator, by asking it for more than any host has."""
    backend = TorchBackend("cpu", 1)
    backend.open()
    model = backend.load(torch_pack, "fp32")
    with monkeypatch.context() as patch:
        patch.setattr(model, "_input", lambda pixels: torch.empty(2**50))
        with pytest.raises(OutOfMemory, match="do not fit"):
            run(model, [boxed(0)], [options(torch_pack)])
    assert len(run(model, [boxed(0)], [options(torch_pack)]).candidates) == 1
    model.close()
    backend.close()
