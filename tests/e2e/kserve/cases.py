"""What is done with an unmodified tritonclient, beside yolopool's client; see `process`."""

import asyncio
import json
import queue
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of libraries that tritonclient imports
    import tritonclient.grpc
    import tritonclient.grpc.aio
    import tritonclient.http
    import tritonclient.http.aio
    from tritonclient.utils import InferenceServerException

import yolopool
from yolopool.client.masks import Mask

LIBRARIES = {"grpc": tritonclient.grpc, "http": tritonclient.http}
AIO = {"grpc": tritonclient.grpc.aio, "http": tritonclient.http.aio}
FILES = sorted((Path(__file__).parents[3] / "examples/shapes/images").glob("*.png"))
MODEL = "team/shapes"
OUTPUTS = ("num_detections", "boxes", "scores", "classes")


@cache
def encoded() -> list[bytes]:
    return [path.read_bytes() for path in FILES]


@cache
def pixels() -> list[Any]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in FILES]


@cache
def expected(native: str) -> list[Any]:
    """What Detect says of each file."""
    with yolopool.Client(native) as client:
        return [client.detect(data, model=MODEL) for data in encoded()]


def tensor(library: Any, name: str, datatype: str, values: Any) -> Any:
    given = library.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def bytes_of(library: Any, images: Sequence[bytes]) -> Any:
    values = np.array([[data] for data in images], dtype=np.object_)
    return tensor(library, "image", "BYTES", values)


def placed(scores: Sequence[float]) -> Any:
    """The rows whose place is sure, bool (n,). Another company in a pass adds in another order, so
    that neighbours with all but the same score may change places.
    """
    gaps = np.diff(np.asarray(scores), prepend=np.inf, append=-np.inf)
    return (np.abs(gaps) > 1e-6)[1:] & (np.abs(gaps) > 1e-6)[:-1]


def assert_rows(result: Any, wanted: Sequence[Any]) -> None:
    """The outputs are what Detect says of these images, in this order."""
    counts, boxes, scores, classes = (result.as_numpy(name) for name in OUTPUTS)
    most = max(len(one) for one in wanted)
    assert boxes.shape == (len(wanted), most, 4)
    assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int32)
    for row, one in enumerate(wanted):
        n = len(one)
        assert counts[row].tolist() == [n]
        corners = np.reshape([found.xyxy for found in one], (n, 4))
        confidences = [found.confidence for found in one]
        sure = placed(confidences)
        np.testing.assert_allclose(boxes[row, :n][sure], corners[sure], atol=1e-2)
        np.testing.assert_allclose(scores[row, :n], confidences, atol=1e-4)
        numbers = np.array([found.class_id for found in one], np.int32)
        assert (classes[row, :n][sure] == numbers[sure]).all()
        assert not boxes[row, n:].any()
        assert not scores[row, n:].any()
        assert (classes[row, n:] == -1).all()


def tensors(library: Any, some: Sequence[int]) -> Iterator[tuple[Any, dict[str, str]]]:
    """The same pictures by every way, and the parameters that each needs."""
    rgb = np.stack([pixels()[i] for i in some])
    yield bytes_of(library, [encoded()[i] for i in some]), {}
    yield tensor(library, "images", "UINT8", rgb), {}
    yield tensor(library, "images", "UINT8", np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))), {}
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    yield tensor(library, "images", "UINT8", bgr), {"channel_order": "BGR", "layout": "NHWC"}
    shares = rgb.astype(np.float32) / 255
    yield tensor(library, "images", "FP32", shares), {}
    yield tensor(library, "images", "FP32", np.ascontiguousarray(shares.transpose(0, 3, 1, 2))), {}


def answers_are_detects(door: str, address: str, native: str, size: int) -> None:
    """Every labelled picture, in batches of this size."""
    library, wanted = LIBRARIES[door], expected(native)
    client = library.InferenceServerClient(address)
    assert sum(len(one) for one in wanted) > len(FILES)
    for first in range(0, len(FILES), size):
        some = range(len(FILES))[first : first + size]
        for given, parameters in tensors(library, some):
            result = client.infer(MODEL, [given], parameters=parameters)
            assert_rows(result, [wanted[i] for i in some])
    client.close()


def assert_masks(texts: Sequence[bytes], wanted: Sequence[Mask]) -> None:
    """Equal but for pixels at an edge: another company in a pass adds in another order."""
    for text, mask in zip(texts, wanted, strict=True):
        given = json.loads(text)
        height, width = given["size"]
        found = Mask((width, height), counts=given["counts"].encode())
        assert np.mean(found.to_array() != mask.to_array()) < 1e-3


def of_task(address: str, native: str, model: str) -> None:
    """What belongs to the task of a model, on two pictures at once."""
    library = tritonclient.grpc
    client = library.InferenceServerClient(address)
    result = client.infer(model, [bytes_of(library, encoded()[:2])], timeout=120_000_000)
    options: dict[str, dict[str, Any]] = {
        "seg": {"masks": "rle"},
        "cls": {"all_probabilities": True},
    }
    with yolopool.Client(native) as own:
        given = options.get(model, {})
        wanted: list[Any] = [own.detect(data, model=model, **given) for data in encoded()[:2]]
    for row, one in enumerate(wanted):
        n = len(one)
        if model == "seg":
            assert n
            assert_masks(result.as_numpy("masks")[row, :n], one.masks)
            assert set(result.as_numpy("masks")[row, n:]) <= {b""}
        elif model == "pose":
            assert n
            sure = placed([found.confidence for found in one])
            assert sure.any()
            np.testing.assert_allclose(
                result.as_numpy("keypoints")[row, :n][sure], one.keypoints[sure], atol=1e-2
            )
        elif model == "obb":
            assert n
            sure = placed([found.confidence for found in one])
            assert sure.any()
            np.testing.assert_allclose(
                result.as_numpy("rotated_boxes")[row, :n][sure], one.xywhr[sure], atol=1e-2
            )
        else:
            top = one.classification
            assert result.as_numpy("classes")[row].tolist() == top.class_id.tolist()
            for name, values in (("scores", top.probability), ("probabilities", top.probabilities)):
                np.testing.assert_allclose(result.as_numpy(name)[row], values, atol=1e-5)
    if model != "cls":
        assert_rows(result, wanted)
    client.close()


def every_call(door: str, address: str) -> None:
    library = LIBRARIES[door]
    client = library.InferenceServerClient(address)
    as_dict = {"as_json": True} if door == "grpc" else {}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata(**as_dict)["name"] == "yolopool"
    metadata = client.get_model_metadata(MODEL, "1", **as_dict)
    assert (metadata["name"], metadata["versions"]) == (MODEL, ["1"])
    assert [one["name"] for one in metadata["outputs"]] == list(OUTPUTS)
    config = client.get_model_config(MODEL, **as_dict)
    config = config["config"] if door == "grpc" else config
    assert config["max_batch_size"] == 64
    assert json.loads(config["parameters"]["class_names"]["string_value"])[0] == "circle"
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("absent")
    client.infer(MODEL, [bytes_of(library, encoded()[:1])], model_version="1", request_id="a 1")
    found = client.get_inference_statistics(MODEL, **as_dict)["model_stats"]
    assert [(one["name"], one["version"]) for one in found] == [(MODEL, "1")]
    client.unload_model(MODEL)
    assert not client.is_model_ready(MODEL)
    index = client.get_model_repository_index(**as_dict)
    (entry,) = index["models"] if door == "grpc" else index
    assert (entry["name"], entry["state"]) == (MODEL, "UNAVAILABLE")
    # The first request loads it.
    client.infer(MODEL, [bytes_of(library, encoded()[:1])])
    assert client.is_model_ready(MODEL)
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    assert not client.get_system_shared_memory_status(**as_dict)
    for call in (
        lambda: client.register_system_shared_memory("a", "/a", 8),
        lambda: client.update_trace_settings(settings={"trace_level": ["OFF"]}),
        lambda: client.update_log_settings(settings={"log_info": True}),
        lambda: client.load_model(MODEL, config="{}"),
    ):
        status = refusal(call).status()
        assert status == ("StatusCode.UNIMPLEMENTED" if door == "grpc" else "501")
    client.close()


def refusal(call: Callable[[], Any]) -> Any:
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert len(caught.value.message()) > 20
    return caught.value


def errors(door: str, address: str) -> None:
    library = LIBRARIES[door]
    client = library.InferenceServerClient(address)
    image, broken = encoded()[0], b"no image"
    codes = {
        "INVALID_ARGUMENT": "400", "NOT_FOUND": "404", "DEADLINE_EXCEEDED": "504",
    }  # fmt: skip

    def says(code: str, words: str, *, name: str = MODEL, http: str = "", **more: Any) -> None:
        given = more.pop("inputs", None) or [bytes_of(library, [image])]
        error = refusal(lambda: client.infer(name, given, **more))
        status = f"StatusCode.{code}" if door == "grpc" else http or codes[code]
        assert error.status() == status, error.message()
        assert words in error.message(), error.message()

    says("NOT_FOUND", "there is no model 'absent'", name="absent")
    says("NOT_FOUND", "does not exist", model_version="9")
    says("INVALID_ARGUMENT", "is no number", model_version="newest")
    says("INVALID_ARGUMENT", "no image", http="415", inputs=[bytes_of(library, [broken])])
    batch = [image] * 5 + [broken] + [image] * 2
    fifth = "image 5 (counted from 0) of 8"
    says("INVALID_ARGUMENT", fifth, http="415", inputs=[bytes_of(library, batch)])
    says("DEADLINE_EXCEEDED", "", timeout=1)
    says("INVALID_ARGUMENT", "'confidense' is not known", parameters={"confidense": 0.5})
    says("INVALID_ARGUMENT", "give a number, 0 to 1", parameters={"confidence": 7.0})
    masks = [library.InferRequestedOutput("masks")]
    says("INVALID_ARGUMENT", "task detect: there are num_detections", outputs=masks)
    top = [library.InferRequestedOutput("scores", class_count=3)]
    says("INVALID_ARGUMENT", "classification strings are not served", outputs=top)
    loud = tensor(library, "images", "FP32", np.full((1, 3, 32, 32), 128, np.float32))
    says("INVALID_ARGUMENT", "FP32 pixels are 0 to 1", inputs=[loud])
    flat = tensor(library, "images", "UINT8", np.zeros((3, 32, 32), np.uint8))
    says("INVALID_ARGUMENT", "give [n, 3, height, width]", inputs=[flat])
    client.close()


# Parameters, and what the client calls them.
OPTIONS: Sequence[tuple[dict[str, Any], dict[str, Any]]] = (
    ({"confidence": 0.01, "max_det": 3}, {"confidence": 0.01, "max_detections": 3}),
    (
        {"conf": 0.01, "iou": 0.1, "agnostic_nms": True},
        {"confidence": 0.01, "iou": 0.1, "agnostic_nms": True},
    ),
    ({"classes": "0, 2", "confidence": 0.02}, {"classes": [0, 2], "confidence": 0.02}),
    ({"classes": 1}, {"classes": [1]}),
)


def options(door: str, address: str, native: str) -> None:
    library, data = LIBRARIES[door], encoded()[0]
    client = library.InferenceServerClient(address)
    with yolopool.Client(native) as own:
        for parameters, given in OPTIONS:
            result = client.infer(
                MODEL, [bytes_of(library, [data])], parameters=parameters, priority=1
            )
            assert_rows(result, [own.detect(data, model=MODEL, **given)])
    only = client.infer(
        MODEL, [bytes_of(library, [data])], outputs=[library.InferRequestedOutput("scores")]
    )
    assert only.as_numpy("scores") is not None
    assert only.as_numpy("boxes") is None
    if door == "http":
        rows = [library.InferRequestedOutput("boxes", binary_data=False)]
        row = client.infer(MODEL, [bytes_of(library, [data])], outputs=rows).as_numpy("boxes")
        np.testing.assert_allclose(row[0], [f.xyxy for f in expected(native)[0]], atol=1e-2)
        for packing in ("gzip", "deflate"):
            packed = client.infer(
                MODEL, [bytes_of(library, [data])], request_compression_algorithm=packing
            )
            assert_rows(packed, expected(native)[:1])
    client.close()


def by_alias(door: str, address: str, native: str, model: str) -> None:
    """An alias is a model's name to the protocol; it moves, and the client never knows."""
    library, name = LIBRARIES[door], f"{model}:stable"
    client = library.InferenceServerClient(address)
    with yolopool.Client(native) as own:
        for version in ("1", "2"):
            own.promote(f"{model}@{version}", "stable")
            client.load_model(name)
            assert client.is_model_ready(name)
            as_dict = {"as_json": True} if door == "grpc" else {}
            assert client.get_model_metadata(name, **as_dict)["versions"] == [version]
            result = client.infer(
                name,
                [bytes_of(library, encoded()[:2])],
                parameters={"sticky_key": "camera-7"},
            )
            assert_rows(result, expected(native)[:2])
            said = result.get_response()
            answered = said.model_version if door == "grpc" else said["model_version"]
            assert answered == version
        own.rollback(name)
        own.delete_alias(name)
    assert not client.is_model_ready(name)
    assert refusal(lambda: client.infer(name, [bytes_of(library, encoded()[:1])])).status() in (
        "StatusCode.NOT_FOUND",
        "404",
    )
    client.close()


def asyncio_client(door: str, address: str, native: str) -> None:
    async def ask() -> None:
        library = AIO[door]
        client = library.InferenceServerClient(address)
        wanted = expected(native)
        assert await client.is_model_ready(MODEL)
        calls = [client.infer(MODEL, [bytes_of(LIBRARIES[door], [data])]) for data in encoded()]
        for result, one in zip(await asyncio.gather(*calls), wanted, strict=True):
            assert_rows(result, [one])
        if door == "grpc":

            async def requests() -> Any:
                for number, data in enumerate(encoded()):
                    image = bytes_of(LIBRARIES[door], [data])
                    yield {"model_name": MODEL, "inputs": [image], "request_id": str(number)}

            number = 0
            async for result, error in client.stream_infer(requests()):
                assert error is None, error
                assert result.get_response().id == str(number)
                assert_rows(result, [wanted[number]])
                number += 1
            assert number == len(wanted)
        await client.close()

    asyncio.run(ask())


def callbacks(address: str, native: str) -> None:
    """async_infer, whose answers come to a function."""
    library, wanted = tritonclient.grpc, expected(native)
    client = library.InferenceServerClient(address)
    answers: queue.Queue[Any] = queue.Queue()
    for number, data in enumerate(encoded()):
        client.async_infer(
            MODEL, [bytes_of(library, [data])], request_id=str(number),
            callback=lambda result, error: answers.put((result, error)),
        )  # fmt: skip
    for _ in wanted:
        result, error = answers.get(timeout=60)
        assert error is None, error
        assert_rows(result, [wanted[int(result.get_response().id)]])
    client.close()


def a_stream(address: str, native: str) -> None:
    """Answers in the order of the requests, of pictures, tensors and batches; what is refused is
    answered in its place, and the stream goes on.
    """
    library, wanted = tritonclient.grpc, expected(native)
    client = library.InferenceServerClient(address)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    rng = random.Random(22)
    sent: list[list[int] | None] = []
    for number in range(24):
        some = rng.sample(range(len(FILES)), rng.choice((1, 1, 3)))
        sent.append(None if number % 7 == 3 else some)
        ways = [given for given, parameters in tensors(library, some) if not parameters]
        refusal = bytes_of(library, [b"no image"])
        given = refusal if sent[-1] is None else rng.choice(ways)
        client.async_stream_infer(MODEL, [given], request_id=str(number))
    for number, images in enumerate(sent):
        result, error = answers.get(timeout=60)
        if images is None:
            assert result is None
            assert "INVALID_ARGUMENT: IMAGE_NOT_DECODABLE" in error.message()
        else:
            assert error is None, error
            assert result.get_response().id == str(number)
            assert result.get_response().parameters["triton_final_response"].bool_param
            assert_rows(result, [wanted[i] for i in images])
    client.stop_stream()
    client.close()


def ask_at_once(client: Any, image: Any, requests: int, at_once: int) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    open_calls = 0
    for number in range(requests):
        client.async_infer(
            MODEL, [image], callback=lambda result, error: answers.put(error),
            request_id=str(number),
        )  # fmt: skip
        open_calls += 1
        if open_calls == at_once:
            assert answers.get(timeout=60) is None
            open_calls -= 1
    for _ in range(open_calls):
        assert answers.get(timeout=60) is None


def as_perf_analyzer(address: str, requests: int, at_once: int) -> None:
    """Its calls in their order, and what it derives from them."""
    library = tritonclient.grpc
    client = library.InferenceServerClient(address)
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    metadata = client.get_model_metadata(MODEL, as_json=True)
    config = client.get_model_config(MODEL, as_json=True)["config"]
    assert {one["name"] for one in config["input"]} <= {one["name"] for one in metadata["inputs"]}
    assert not config["model_transaction_policy"].get("decoupled", False)
    assert "dynamic_batching" in config
    dims = {one["name"]: one["shape"] for one in metadata["inputs"]}
    for one in config["input"]:  # the first dimension of the metadata is the batch
        assert dims[one["name"]][1:] == one["dims"]
        assert one["optional"]
    assert "statistics" in client.get_server_metadata(as_json=True)["extensions"]

    def numbers() -> Any:
        (found,) = client.get_inference_statistics(MODEL).model_stats
        assert (found.name, found.version) == (MODEL, "1")
        return found

    for size in (1, 4):
        before = numbers()
        image = bytes_of(library, encoded()[:size])
        ask_at_once(client, image, requests, at_once)
        after = numbers()
        assert after.inference_count - before.inference_count == requests * size
        passes = after.execution_count - before.execution_count
        assert 0 < passes <= requests * size
        for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            old, new = (getattr(one.inference_stats, part) for one in (before, after))
            assert new.count - old.count == requests
            assert new.ns > old.ns
        whole, *parts = (
            getattr(after.inference_stats, part).ns - getattr(before.inference_stats, part).ns
            for part in ("success", "queue", "compute_input", "compute_infer", "compute_output")
        )
        assert sum(parts) <= whole
        assert after.inference_stats.fail.count == before.inference_stats.fail.count
        assert after.last_inference > before.last_inference
    client.close()


def ask_until(address: str, native: str, path: str) -> dict[str, int]:
    """Asks in turn by single requests and by batches until the file is there. Whoever gets
    UNAVAILABLE asks again, as such clients do; nothing else may go wrong, and no answer be
    another picture's.
    """
    library, wanted = tritonclient.grpc, expected(native)
    client = library.InferenceServerClient(address)
    answered = retried = 0
    last = time.monotonic()
    while not Path(path).exists():
        some = [(answered + i) % len(FILES) for i in range(1 if answered % 2 else 4)]
        try:
            result = client.infer(MODEL, [bytes_of(library, [encoded()[i] for i in some])])
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE" or time.monotonic() - last > 60:
                raise
            retried += 1
            time.sleep(0.1)
            continue
        assert_rows(result, [wanted[i] for i in some])
        answered += 1
        last = time.monotonic()
        Path(path).with_suffix(".count").write_text(str(answered))
    client.close()
    return {"answered": answered, "retried": retried}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        name, arguments = json.loads(line)
        error, result = "", None
        try:
            result = globals()[name](**arguments)
        except BaseException:
            error = traceback.format_exc()
        answers.write(json.dumps({"error": error, "result": result}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
