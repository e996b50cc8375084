"""Translates between this worker's types and the protos. Decides nothing."""

from worker.backends.base import Backend
from worker.batching.config import BULK, INTERACTIVE, NORMAL, BatchingConfig
from worker.batching.goal_control import GoalControl, Took
from worker.engine.engine import Engine
from worker.engine.runner import Outcome
from worker.packs.manifest import channels_of
from worker.preprocess.decode import ChannelOrder
from worker.preprocess.prepared import Prepared, PreprocessSpec, RawPixels
from worker.replicas.ledger import Claim, Ledger
from worker.replicas.replica import NOTHING, Assignment, Replica
from worker.service.options import CLASSIFY, OutputOptions
from yolopool.errors import ImageEmpty, ImageShapeMismatch
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2
from yolopool.vocabulary import ReplicaState, ShapePolicy

STATES = {
    ReplicaState.ASSIGNED: types_pb2.REPLICA_STATE_ASSIGNED,
    ReplicaState.WARM: types_pb2.REPLICA_STATE_WARM,
    ReplicaState.HOT: types_pb2.REPLICA_STATE_HOT,
    ReplicaState.RELEASING: types_pb2.REPLICA_STATE_RELEASING,
    ReplicaState.FAILED: types_pb2.REPLICA_STATE_FAILED,
}
_CHANNEL_ORDERS = {
    types_pb2.CHANNEL_ORDER_BGR: ChannelOrder.BGR,
    types_pb2.CHANNEL_ORDER_RGB: ChannelOrder.RGB,
    types_pb2.CHANNEL_ORDER_GRAY: ChannelOrder.GRAY,
}
_PRIORITIES = {
    types_pb2.PRIORITY_INTERACTIVE: INTERACTIVE,
    types_pb2.PRIORITY_NORMAL: NORMAL,
    types_pb2.PRIORITY_UNSPECIFIED: NORMAL,
    types_pb2.PRIORITY_BULK: BULK,
}


def key_of(version: types_pb2.VersionKey) -> str:
    return f"{version.model}@{version.version}"


def assignment_in(request: worker_pb2.AssignRequest, precision: str) -> Assignment:
    """`precision` is this worker's, used where the request names none."""
    return Assignment(
        key=key_of(request.version),
        model=request.version.model,
        number=request.version.version,
        settings=request.settings,
        pack=request.pack,
        precision=request.variant.precision or precision,
        max_batch=request.variant.max_batch,
        pinned=request.pin,
        known=request.footprint if request.HasField("footprint") else None,
        warm=request.reach == worker_pb2.REACH_WARM,
        batching=_batching_of(request.batching) if request.HasField("batching") else None,
    )


def _batching_of(batching: types_pb2.Batching) -> BatchingConfig:
    return BatchingConfig(
        max_batch=batching.max_batch,
        preferred_sizes=tuple(batching.preferred_sizes),
        max_delay_s=batching.max_delay_ms / 1000,
        queue_capacity=batching.queue_capacity,
        fixed=batching.fixed,
        p99_goal_s=batching.p99_goal_ms / 1000,
    )


def _batching_to(batching: BatchingConfig) -> types_pb2.Batching:
    return types_pb2.Batching(
        max_batch=batching.max_batch,
        preferred_sizes=batching.preferred_sizes,
        max_delay_ms=batching.max_delay_s * 1000,
        queue_capacity=batching.queue_capacity,
        fixed=batching.fixed,
        p99_goal_ms=batching.p99_goal_s * 1000,
    )


def request_of(
    order: Assignment, pinned: bool, measured: types_pb2.Footprint | None
) -> worker_pb2.AssignRequest:
    """The request that repeats an assignment, for the process that replaces this one."""
    return worker_pb2.AssignRequest(
        version=types_pb2.VersionKey(model=order.model, version=order.number),
        settings=order.settings,
        pack=order.pack,
        variant=types_pb2.Variant(precision=order.precision, max_batch=order.max_batch),
        pin=pinned,
        footprint=measured or order.known,
        batching=_batching_to(order.batching) if order.batching is not None else None,
    )


def source_of(request: worker_pb2.InferRequest) -> bytes | RawPixels:
    """The image as the preprocessor takes it. Raises ImageEmpty, ImageShapeMismatch."""
    if request.WhichOneof("image") == "encoded":
        return request.encoded
    if request.WhichOneof("image") == "raw":
        raw = request.raw
        order = _CHANNEL_ORDERS.get(raw.channel_order)
        if order is None:
            raise ImageShapeMismatch("raw pixels need a channel order: BGR, RGB or GRAY")
        return RawPixels(raw.data, raw.height, raw.width, order)
    raise ImageEmpty("there is no image in the request: set encoded or raw")


def region_of(options: detection_pb2.DetectOptions) -> tuple[float, float, float, float] | None:
    if not options.HasField("region_of_interest"):
        return None
    box = options.region_of_interest
    return (box.x_min, box.y_min, box.x_max, box.y_max)


def spec_of(replica: Replica, output_options: OutputOptions) -> PreprocessSpec:
    settings = replica.order.settings
    square = settings.shape_policy == types_pb2.SHAPE_POLICY_SQUARE
    policy = ShapePolicy.SQUARE if square else ShapePolicy.RECT
    manifest = replica.manifest_pack.manifest
    return PreprocessSpec(
        output_options.image_size,
        replica.stride,
        policy,
        manifest.task == CLASSIFY,
        output_options.tiling,
        output_options.accept_damaged,
        channels_of(manifest),
    )


def priority_of(request: worker_pb2.InferRequest) -> int:
    return _PRIORITIES.get(request.priority, NORMAL)


def variant_of(replica: Replica, backend: Backend, compute_class: str = "") -> types_pb2.Variant:
    """compute_class: of this worker, where the reader does not know the worker."""
    name, precision = backend.name, replica.order.precision
    if replica.pack is not None:
        name, precision = backend.variant(replica.pack.manifest, precision)
    return types_pb2.Variant(
        backend=name,
        precision=precision,
        device_kind=backend.device_kind,
        max_batch=replica.max_batch,
        compute_class=compute_class,
    )


def version_of(replica: Replica) -> types_pb2.VersionKey:
    return types_pb2.VersionKey(model=replica.order.model, version=replica.order.number)


def replica_to(replica: Replica, backend: Backend, engine: Engine, now: float) -> types_pb2.Replica:
    """`now` is in seconds of the worker's clock."""
    error, asked = replica.error, replica.order.batching
    rates = replica.arrivals.now(now)
    # What the replica holds on the device; while it waits, what it is expected to hold.
    size = replica.claim if replica.claim.weights_bytes else _expected(replica)
    return types_pb2.Replica(
        version=version_of(replica),
        variant=variant_of(replica, backend),
        state=STATES[replica.state],
        pinned=replica.pinned,
        weights_bytes=size.weights_bytes,
        workspace_bytes=size.workspace_bytes,
        outstanding=replica.outstanding,
        last_used_unix_s=replica.last_used_unix_s,
        requests_total=replica.requests_total,
        loads_total=replica.loads_total,
        inference_ms=engine.image_s(replica.order.key, replica.shape) * 1000,
        reason=error.reason if error is not None else "",
        message=error.message if error is not None else "",
        load_ms=replica.load_s * 1000,
        pack=replica.order.pack.digest,
        footprint=replica.measured,
        swaps_total=replica.swaps_total,
        rates=types_pb2.Rates(fast=rates.fast, middle=rates.middle, slow=rates.slow),
        queue_ms=replica.usage.queue_s(now) * 1000,
        busy=replica.usage.busy(now),
        hot_since_unix_s=replica.hot_since_unix_s,
        hits_total=replica.hits_total,
        batching=_batching_to(asked) if asked is not None else None,
        self_test=replica.self_test,
        adaption=_adaption_to(replica.control) if replica.control is not None else None,
    )


def _expected(replica: Replica) -> Claim:
    return replica.expected() if replica.pack is not None else NOTHING


def ledger_to(
    ledger: Ledger,
    measured_bytes: int,
    assignable_bytes: int,
    host_bytes: int,
    foreign_bytes: int,
    drift_bytes: int,
) -> types_pb2.Ledger:
    return types_pb2.Ledger(
        budget_bytes=ledger.budget_bytes,
        context_bytes=ledger.context_bytes,
        weights_bytes=ledger.weights_bytes,
        workspace_bytes=ledger.workspace_bytes,
        graph_pool_bytes=ledger.graph_pool_bytes,
        backend_private_bytes=ledger.private_bytes,
        load_transient_bytes=ledger.load_transient_bytes,
        measured_bytes=measured_bytes,
        assignable_bytes=assignable_bytes,
        host_bytes=host_bytes,
        foreign_bytes=foreign_bytes,
        drift_bytes=drift_bytes,
        max_hot=ledger.max_replicas,
    )


def took_of(outcome: Outcome, total_s: float) -> Took:
    pass_s = outcome.transfer_s + outcome.inference_s + outcome.postprocess_s
    return Took(total_s, outcome.queue_s, pass_s, outcome.batch_size)


def _adaption_to(control: GoalControl) -> types_pb2.Adaption:
    now = control.adapted
    return types_pb2.Adaption(
        max_batch=now.max_batch,
        max_delay_ms=now.max_delay_s * 1000,
        p99_ms=now.p99_s * 1000,
        is_out_of_reach=now.is_out_of_reach,
    )


def load_to(engine: Engine) -> types_pb2.LoadReport:
    load = engine.load()
    return types_pb2.LoadReport(
        outstanding=load.outstanding,
        queue_capacity=load.capacity,
        estimated_wait_ms=load.wait_s * 1000,
        sequence=load.sequence,
        passes_total=load.passes_total,
        images_total=load.images_total,
    )


def timing_to(outcome: Outcome, prepared: Prepared) -> detection_pb2.Timing:
    return detection_pb2.Timing(
        queue_ms=outcome.queue_s * 1000,
        decode_ms=prepared.decode_s * 1000,
        preprocess_ms=(prepared.preprocess_s + outcome.transfer_s) * 1000,
        inference_ms=outcome.inference_s * 1000,
        postprocess_ms=outcome.postprocess_s * 1000,
    )
