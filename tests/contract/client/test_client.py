"""Both clients against a real server: what is sent, what is read, and how failures arrive."""

import asyncio
import io
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.contract.scripted_pool import ScriptedPool
from yolopool import AsyncClient, Client, errors
from yolopool.client import calls, fleet_records, model_records
from yolopool.client.explanations import Event
from yolopool.client.rollout import schedule_records
from yolopool.error_table import BY_REASON
from yolopool.v1 import model_pb2, types_pb2

Call = Callable[..., Any]


@pytest.fixture
def pool() -> Iterator[ScriptedPool]:
    with ScriptedPool() as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, pool: ScriptedPool) -> Iterator[Call]:
    """`call("detect", image, model=...)` on either client."""
    if request.param == "blocking":
        with Client(pool.address) as client:
            yield lambda name, *args, **kwargs: getattr(client, name)(*args, **kwargs)
        return

    def run(name: str, *args: Any, **kwargs: Any) -> Any:
        async def inside() -> Any:
            async with AsyncClient(pool.address) as client:
                return await getattr(client, name)(*args, **kwargs)

        return asyncio.run(inside())

    yield run


@pytest.fixture(scope="module")
def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (160, 120), (200, 30, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def test_detect_answers_arrays_and_provenance(call: Call, png: bytes) -> None:
    found = call("detect", png, model="shapes", request_id="r1")
    assert found.xyxy.dtype == np.float32
    assert found.xyxy.tolist() == [[10, 20, 110, 90]] * 2
    assert found.confidence.tolist() == pytest.approx([0.9, 0.5])
    assert found.class_id.tolist() == [1, 0]
    assert found.class_name == ("square", "circle")
    assert (found.model, found.image_size, found.batch_size) == ("shapes@3", (160, 120), 2)
    assert (found.variant, found.worker, found.device) == ("torch/fp32/cpu", "box-cpu", "cpu")
    assert (found.timing.inference_ms, found.timing.total_ms) == (12.5, 20.0)
    assert found.request_id == "r1"


def test_options_arrive_by_the_protos_names(call: Call, pool: ScriptedPool, png: bytes) -> None:
    call(
        "detect", png, model="team/shapes@3", confidence=0.4, class_confidences={2: 0.7}, iou=0.5,
        max_detections=7, classes=[0, 2], agnostic_nms=True, region_of_interest=(1, 2, 30, 40),
        priority="interactive",
    )  # fmt: skip
    sent = pool.script.last("Detect")
    options = sent.options
    assert (sent.model, sent.priority) == ("team/shapes@3", types_pb2.PRIORITY_INTERACTIVE)
    assert options.confidence == pytest.approx(0.4)
    assert [(c.class_id, c.confidence) for c in options.class_confidences] == [
        (2, pytest.approx(0.7))
    ]
    assert options.iou == pytest.approx(0.5)
    assert (options.max_detections, list(options.classes)) == (7, [0, 2])
    assert options.agnostic_nms
    assert options.region_of_interest == types_pb2.Box(x_min=1, y_min=2, x_max=30, y_max=40)


def test_unset_options_stay_unset(call: Call, pool: ScriptedPool, png: bytes) -> None:
    call("detect", png, model="shapes")
    options = pool.script.last("Detect").options
    assert not any(options.HasField(name) for name in ("confidence", "iou", "max_detections"))
    assert not options.HasField("region_of_interest")


def test_every_kind_of_image(call: Call, pool: ScriptedPool, png: bytes, tmp_path: Path) -> None:
    path = tmp_path / "street.png"
    path.write_bytes(png)
    for encoded in (path, str(path), png):
        call("detect", encoded, model="shapes")
        assert pool.script.last("Detect").encoded == png
    rgb = np.zeros((4, 6, 3), dtype=np.uint8)
    rgb[..., 0] = 200
    call("detect", rgb, model="shapes", channel_order="rgb")
    raw = pool.script.last("Detect").raw
    assert (raw.height, raw.width, raw.channel_order) == (4, 6, types_pb2.CHANNEL_ORDER_RGB)
    assert raw.data == rgb.tobytes()
    call("detect", rgb[..., ::-1], model="shapes", channel_order="bgr")
    raw = pool.script.last("Detect").raw
    assert raw.channel_order == types_pb2.CHANNEL_ORDER_BGR
    assert raw.data == rgb[..., ::-1].tobytes()
    call("detect", rgb[..., 0], model="shapes")
    raw = pool.script.last("Detect").raw
    assert (raw.channel_order, len(raw.data)) == (types_pb2.CHANNEL_ORDER_GRAY, 24)
    call("detect", Image.fromarray(rgb), model="shapes")
    assert pool.script.last("Detect").raw.data == rgb.tobytes()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "IMAGE_EMPTY"),
        (np.zeros((0, 4, 3), np.uint8), "IMAGE_EMPTY"),
        (np.zeros((4, 4, 3), np.uint8), "INVALID_OPTION"),
        (np.zeros((4, 4, 5), np.uint8), "IMAGE_SHAPE_MISMATCH"),
        (np.zeros((4, 4, 3), np.float32), "IMAGE_SHAPE_MISMATCH"),
        (7, "INVALID_OPTION"),
    ],
)
def test_what_is_no_image_never_leaves(
    call: Call, pool: ScriptedPool, image: Any, reason: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        call("detect", image, model="shapes")
    assert caught.value.reason == reason
    assert pool.script.calls == []


# UNAVAILABLE is sent again by the transport first; the others fail at once.
@pytest.mark.parametrize("reason", sorted(set(BY_REASON) - {"INTERNAL"}))
def test_every_failure_is_typed(pool: ScriptedPool, png: bytes, reason: str) -> None:
    with Client(pool.address) as client, pytest.raises(errors.YolopoolError) as caught:
        client.detect(png, model=reason)
    assert type(caught.value) is BY_REASON[reason]
    assert (caught.value.reason, caught.value.retry_after_s) == (reason, 2.0)
    assert caught.value.retryable == BY_REASON[reason].retryable


def test_asyncio_failures_are_the_same(pool: ScriptedPool, png: bytes) -> None:
    async def inside() -> None:
        async with AsyncClient(pool.address) as client:
            await client.detect(png, model="QUEUE_FULL")

    with pytest.raises(errors.QueueFull) as caught:
        asyncio.run(inside())
    assert caught.value.retry_after_s == 2.0


def test_every_call_has_a_deadline(call: Call, pool: ScriptedPool, png: bytes) -> None:
    call("detect", png, model="shapes", timeout_s=7.0)
    call("models")
    call("model", "shapes")
    call("load", "shapes")
    call("unload", "shapes")
    call("set_residency", "shapes", "normal")
    call("changeover", ["shapes"], ["old"])
    call("set_schedule", "day", "0 6 * * *", ["shapes"])
    call("schedules")
    call("delete_schedule", "day")
    call("delete", "shapes")
    call("workers")
    call("fleet")
    for name, _, remaining in pool.script.calls:
        assert remaining is not None, name
        assert remaining < 1000, name
    assert round(pool.script.calls[0][2] or 0.0) <= 7


def test_a_server_that_gives_no_answer_is_late(png: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(address) as client, pytest.raises(errors.DeadlineExceeded, match="in time"):
            client.detect(png, model="shapes", timeout_s=0.3)


def test_what_can_not_be_serialised_is_typed(pool: ScriptedPool, png: bytes) -> None:
    call = replace(calls.detect(png, "shapes"), request=object())
    with Client(pool.address) as client, pytest.raises(errors.OutOfMemory, match="serialise"):
        client._send(call)


def test_no_server_is_unavailable_before_the_deadline(png: bytes) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(errors.Unavailable) as caught:
        client.detect(png, model="shapes", timeout_s=20)
    assert caught.value.retryable


def test_register_takes_a_rectangle(call: Call, pool: ScriptedPool, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    call("register", "shapes", path, image_size=(192, 320))
    settings = pool.script.last("RegisterModel").settings
    assert (settings.image_size, settings.image_height, settings.image_width) == (0, 192, 320)
    with pytest.raises(errors.InvalidOption, match="height, width"):
        call("register", "shapes", path, image_size=(1, 2, 3))


def test_register_uploads_waits_and_tells_how_far(
    call: Call, pool: ScriptedPool, tmp_path: Path
) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(bytes(range(256)) * 10_000)
    pool.script.states = [model_pb2.VERSION_STATE_UPLOADED, model_pb2.VERSION_STATE_IMPORTING]
    steps: list[str] = []
    version = call(
        "register", "shapes", path, image_size=320, shape_policy="square",
        progress=lambda step, fraction: steps.append(step),
    )  # fmt: skip
    assert (version.name, version.state, version.replicas[0].state) == ("shapes@1", "READY", "HOT")
    assert pool.script.stored == path.read_bytes()
    sent = pool.script.last("RegisterModel")
    assert (sent.name, sent.source_name, sent.settings.image_size) == ("shapes", "best.pt", 320)
    assert sent.settings.shape_policy == types_pb2.SHAPE_POLICY_SQUARE
    assert not sent.settings.HasField("confidence")
    assert sent.request_id
    assert {"upload", "fuse"} <= set(steps)


def test_a_broken_upload_goes_on_where_it_ended(
    call: Call, pool: ScriptedPool, tmp_path: Path
) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(np.random.default_rng(0).bytes(3_500_000))
    pool.script.break_upload_at = 2
    call("upload", path)
    assert pool.script.stored == path.read_bytes()
    offsets = [header.offset for name, header, _ in pool.script.calls if name == "UploadArtifact"]
    assert offsets == [0, 0, 0, 2 * 1024 * 1024]


def test_an_absent_file_is_said(call: Call) -> None:
    with pytest.raises(errors.ArtifactNotFound, match="no such file"):
        call("register", "shapes", "/nowhere/best.pt")


def test_a_residency_is_set_and_read(call: Call, pool: ScriptedPool) -> None:
    version = call("set_residency", "shapes", "on-demand", idle_release_s=5, cpu_fallback=True)
    sent = pool.script.last("SetResidency")
    assert (sent.model, sent.residency.mode) == ("shapes", types_pb2.RESIDENCY_MODE_ON_DEMAND)
    kept = version.residency
    assert (kept.mode, kept.idle_release_s, kept.cpu_fallback) == ("on-demand", 5, True)
    with pytest.raises(errors.InvalidOption, match="hot-standby"):
        call("set_residency", "shapes", "cold")


def test_changeovers_and_schedules(call: Call, pool: ScriptedPool) -> None:
    done = call("changeover", ["shapes", "b"], ["old"], replicas=2, pin=True, timeout_s=5)
    sent = pool.script.last("Changeover")
    assert [(one.model, one.replicas, one.pin) for one in sent.prepare] == [
        ("shapes", 2, True),
        ("b", 2, True),
    ]
    assert ([one.name for one in done.prepared], done.released) == (["shapes@1"], ("old@2",))
    zone = {"time_zone": "Europe/Berlin", "lead_s": 60.0}
    made = call("set_schedule", "day", "0 6 * * *", ["shapes"], ["old"], **zone)
    assert (made.name, made.release, made.lead_s, made.last_unix_s) == ("day", ("old",), 60.0, 0.0)
    (one,) = call("schedules")
    assert one.prepare == (schedule_records.Preparation("shapes", 2, True),)
    assert (one.next_unix_s, one.last_error) == (1795323600.0, "LEDGER_FULL: no room [now]")
    assert call("delete_schedule", "day") is None
    with pytest.raises(errors.ScheduleNotFound):
        call("delete_schedule", "absent")
    with pytest.raises(errors.InvalidOption, match="list"):
        call("changeover", "shapes")


def test_aliases_are_sent_and_shown(call: Call, pool: ScriptedPool) -> None:
    held = call("promote", "shapes@2", "stable", expected_version=1, keep_s=60.0, why="better")
    assert (held.name, held.targets, held.version) == ("shapes:stable", {1: 950, 2: 50}, 1)
    assert (held.previous, held.kept) == ({1: 1000}, {3: 1795237800.0})
    sent = pool.script.last("PromoteModel")
    assert (sent.model, sent.alias, sent.why, sent.wait) == ("shapes@2", "stable", "better", True)
    assert (sent.expected_version, sent.keep_s) == (1, 60.0)
    assert not sent.HasField("expected_revision")
    call("promote", "shapes@2", "stable")
    again = pool.script.last("PromoteModel")
    assert again.request_id not in ("", sent.request_id)
    assert not again.HasField("expected_version")
    with pytest.raises(errors.AliasChanged):
        call("promote", "shapes@2", "stable", expected_version=9)
    call("set_alias", "shapes:stable", {1: 950, 2: 50}, expected_revision=2, wait=False)
    sent = pool.script.last("SetAlias")
    assert [(one.version, one.weight) for one in sent.targets] == [(1, 950), (2, 50)]
    assert (sent.expected_revision, sent.wait) == (2, False)
    call("set_alias", "shapes:stable", 4)
    assert pool.script.last("SetAlias").targets[0].weight == 1000
    call("rollback", "shapes:stable", force=True, within_s=5.0)
    assert pool.script.last("RollbackAlias").force
    with pytest.raises(errors.InvalidOption):
        call("rollback", "shapes:stable", within_s=-1.0)
    one = call("alias", "shapes:stable")
    assert (one.switch.targets, one.switch.kind) == ({4: 1000}, "PROMOTE")
    (change,) = one.history
    assert (change.kind, change.by, change.before) == ("SET", "ann", {1: 1000})
    assert [one.name for one in call("aliases", "sha")] == ["shapes:stable"]
    assert call("delete_alias", "shapes:stable") is None


def test_a_file_that_the_pool_fetches_is_named_and_waited_for(
    call: Call, pool: ScriptedPool
) -> None:
    steps: list[str] = []
    version = call(
        "register_uri", "parts", "s3://models/best.pt", sha256="a" * 64, profile="minio",
        confidence=0.4, progress=lambda step, _: steps.append(step),
    )  # fmt: skip
    assert version.state == "READY"
    assert steps
    sent = pool.script.last("RegisterModel")
    assert (sent.name, sent.uri, sent.profile) == ("parts", "s3://models/best.pt", "minio")
    assert (sent.artifact, sent.source_name) == ("a" * 64, "")
    assert sent.settings.confidence == pytest.approx(0.4)
    assert sent.request_id


def test_watches_are_sent_and_shown(call: Call, pool: ScriptedPool) -> None:
    held = call("set_watch", "line7", "s3://models/line7", "parts", patterns=["best-*.pt"])
    assert (held.name, held.model, held.patterns) == ("line7", "parts", ("best-*.pt",))
    sent = pool.script.last("SetWatch").watch
    assert (sent.uri, sent.every_s, sent.settle_s) == ("s3://models/line7", 0.0, 0.0)
    (one,) = call("watches")
    assert (one.known_files, one.by) == (3, "ann")
    assert one.error.startswith("SOURCE_UNAVAILABLE")
    assert call("delete_watch", "line7") is None
    with pytest.raises(errors.WatchNotFound):
        call("delete_watch", "absent")


def test_what_is_to_leave(call: Call, pool: ScriptedPool) -> None:
    assert call("drain_worker", "box-cpu") == ("shapes@1",)
    assert pool.script.last("DrainWorker").wait
    with pytest.raises(errors.WorkerNotFound):
        call("drain_worker", "nobody")
    call("unload", "shapes", force=True)
    assert pool.script.last("UnloadModel").force


def test_reads_are_plain_records(call: Call) -> None:
    (model,) = call("models")
    assert (model.name, model.versions[0].shape_policy) == ("shapes", "rect")
    (worker,) = call("workers")
    assert (worker.state, worker.ledger.used_bytes) == ("READY", 2**28)
    assert worker.cordoned
    assert call("fleet").workers_ready == 1
    (told,) = call("statistics")
    assert (told.model, told.requests_per_s, told.hit_ratio) == ("shapes@1", 12.5, 0.75)
    assert told.steps[-2:] == (10.0, 20.0)
    assert call("delete", "shapes") == ("shapes@1",)


# --- why -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_curve_comes_point_by_point(pool: ScriptedPool, kind: str) -> None:
    asked: dict[str, Any] = {"batch_sizes": [1, 16], "shapes": [(64, 128)], "image": b"jpeg"}

    async def awaited() -> list[fleet_records.BenchPoint]:
        async with AsyncClient(pool.address) as client:
            return [point async for point in client.bench("shapes", **asked, timeout_s=5)]

    if kind == "blocking":
        with Client(pool.address) as client:
            points = list(client.bench("shapes", **asked, timeout_s=5))
    else:
        points = asyncio.run(awaited())
    first, last = points
    assert (first.model, first.worker, first.shape, first.batch) == (
        "shapes@1", "box-cpu", "128x64", 1,
    )  # fmt: skip
    assert (first.precision, first.p50_ms, first.passes, first.reason) == ("fp32", 16.0, 50, "")
    assert (last.batch, last.reason) == (16, "LEDGER_FULL")
    assert pool.script.last("BenchModel").sweep.image == b"jpeg"
    with Client(pool.address) as client, pytest.raises(errors.InvalidOption):
        client.bench("shapes", batch_sizes=[-1])


@pytest.fixture(params=["blocking", "asyncio"])
def listed(request: pytest.FixtureRequest, pool: ScriptedPool) -> Callable[..., list[Event]]:
    """`listed(n, **asked)`: the first n events on either client."""

    def blocking(count: int, **asked: Any) -> list[Event]:
        with Client(pool.address) as client:
            return list(islice(client.events(**asked), count))

    def run(count: int, **asked: Any) -> list[Event]:
        async def inside() -> list[Event]:
            found: list[Event] = []
            async with AsyncClient(pool.address) as client:
                async for event in client.events(**asked):
                    found.append(event)
                    if len(found) == count:
                        break
            return found

        return asyncio.run(inside())

    return blocking if request.param == "blocking" else run


def test_events_are_read_and_followed(
    listed: Callable[..., list[Event]], pool: ScriptedPool
) -> None:
    first, second = listed(9, last=2, kinds=["released"], model="shapes", worker="box-cpu")
    assert (first.id, first.kind, first.model) == ("1-0", "RELEASED", "shapes@1")
    assert (first.worker, first.reason, first.unix_s) == ("box-cpu", "ROOM", 1001.0)
    assert second.id == "2-0"
    assert [event.id for event in listed(1, after="2-0", follow=True)] == ["3-0"]
    asked = pool.script.last("WatchEvents")
    assert (asked.after, asked.follow) == ("2-0", True)
    with pytest.raises(errors.RegistryUnavailable):
        listed(9, after="2-0", follow=True)
    with pytest.raises(errors.InvalidOption, match="WORKER_JOINED"):
        listed(9, kinds=["eclipse"])


def test_plans_and_explanations_are_read(call: Call, pool: ScriptedPool) -> None:
    (step,) = call("plan_load", "shapes", replicas=2, pin=True)
    assert (step.action, step.model, step.worker) == ("ASSIGN", "shapes@1", "box-cpu")
    found = call("explain_model", "shapes")
    assert (found.model, found.rate, found.value_per_gib) == ("shapes@1", 0.25, 2.5)
    here, there = found.workers
    assert (here.state, here.feasible, there.state, there.feasible) == ("HOT", True, "", False)
    (trace,) = call("explain_request", "r1")
    assert (trace.asked, trace.model, trace.hit) == ("shapes", "shapes@1", True)
    with pytest.raises(errors.RequestNotFound):
        call("explain_request", "absent")


def test_batching_is_sent_and_shown(call: Call, pool: ScriptedPool) -> None:
    asked = model_records.Batching(8, (4, 8), 2.5, 32)
    assert call("set_batching", "shapes", "cpu", asked).batching == {"cpu": asked}
    assert call("set_batching", "shapes", "cpu", model_records.Batching()).batching == {
        "cpu": model_records.Batching()
    }
    assert call("set_batching", "shapes", "cpu", None).batching == {}
    sent = pool.script.last("SetBatching")
    assert (sent.model, sent.device_kind, sent.HasField("batching")) == ("shapes", "cpu", False)
    with pytest.raises(errors.InvalidOption, match="max_batch"):
        call("set_batching", "shapes", "cpu", model_records.Batching(-1))


def test_builds_are_sent_and_shown(call: Call, pool: ScriptedPool, tmp_path: Path) -> None:
    made = call("build", "shapes", backend="openvino", precision="bf16")
    assert (made.name, made.build_of) == ("shapes+openvino-bf16-cpu@1", "shapes@1")
    assert not pool.script.last("BuildModel").calibration
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(errors.InvalidOption, match="no images"):
        call("build", "shapes", backend="onnx", precision="int8", calibration=folder)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    for _ in range(2):  # the same images are the same upload
        call("build", "shapes", backend="onnx", precision="int8", calibration=folder)
        sent = pool.script.last("BuildModel")
        assert len(sent.calibration) == 64
    drift = model_records.Drift(3, 9, 8, 1, 0.5, 0.25, 0.9, 0.8, 0.0, 0.75, "torch/fp32")
    assert drift.map_loss == pytest.approx(0.05)
    version = call("set_variant", "shapes", "cpu", "openvino/bf16", drift)
    assert version.served["cpu"].variant == "openvino/bf16"
    kept = version.served["cpu"].drift
    assert (kept.objects, kept.map50, kept.exact) == (9, 0.0, "torch/fp32")
    assert call("set_variant", "shapes", "cpu", "openvino/bf16").served["cpu"].drift is None


def test_placement_is_sent_and_shown(call: Call, pool: ScriptedPool) -> None:
    where = model_records.Placement("day", {"site": "berlin"}, 3, "interactive")
    call("set_placement", "shapes", where)
    sent = pool.script.last("SetPlacement").placement
    assert (sent.pool, dict(sent.labels), sent.max_replicas) == ("day", {"site": "berlin"}, 3)
    assert sent.priority == types_pb2.PRIORITY_INTERACTIVE
    call("load", "shapes", placement=where)
    assert pool.script.last("LoadModel").placement == sent
    call("load", "shapes")
    assert not pool.script.last("LoadModel").HasField("placement")
    with pytest.raises(errors.InvalidOption, match="interactive, normal, bulk"):
        call("set_placement", "shapes", model_records.Placement(priority="urgent"))
