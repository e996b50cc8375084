"""Between protos and the nouns of `fleet`: what comes in of workers, what goes out to callers.

Translation only; what a message may hold is checked where it arrives.
"""

from dataclasses import fields

from control_plane.batching import Batching
from control_plane.build_wire import served_out
from control_plane.types.desired import (
    IDLE_RELEASE_S,
    FencingToken,
    Footprint,
    HeadMode,
    Ledger,
    LoadReport,
    ModelVersion,
    OutputLayout,
    Placement,
    Priority,
    Replica,
    ReplicaState,
    Residency,
    ResidencyMode,
    ShapePolicy,
    VersionKey,
    VersionSettings,
    WorkerInfo,
    WorkerState,
)
from control_plane.view.crash_loops import Exit
from yolopool.server.arrival_rates import Rates
from yolopool.v1 import fleet_pb2, model_pb2, types_pb2

_SHAPE_POLICIES = {
    ShapePolicy.RECT: types_pb2.SHAPE_POLICY_RECT,
    ShapePolicy.SQUARE: types_pb2.SHAPE_POLICY_SQUARE,
}
_SHAPE_POLICIES_IN = {number: policy for policy, number in _SHAPE_POLICIES.items()}
_HEAD_MODES = {
    HeadMode.ONE_TO_MANY: types_pb2.HEAD_MODE_ONE_TO_MANY,
    HeadMode.END_TO_END: types_pb2.HEAD_MODE_END_TO_END,
}
_HEAD_MODES_IN = {number: mode for mode, number in _HEAD_MODES.items()}
_LAYOUTS = {
    OutputLayout.OBJECTNESS: types_pb2.OUTPUT_LAYOUT_OBJECTNESS,
    OutputLayout.PLAIN: types_pb2.OUTPUT_LAYOUT_PLAIN,
    OutputLayout.END_TO_END: types_pb2.OUTPUT_LAYOUT_END_TO_END,
    OutputLayout.PAIR: types_pb2.OUTPUT_LAYOUT_PAIR,
}
_LAYOUTS_IN = {number: layout for layout, number in _LAYOUTS.items()}
_RESIDENCY_MODES = {
    ResidencyMode.NORMAL: types_pb2.RESIDENCY_MODE_NORMAL,
    ResidencyMode.HOT_STANDBY: types_pb2.RESIDENCY_MODE_HOT_STANDBY,
    ResidencyMode.ON_DEMAND: types_pb2.RESIDENCY_MODE_ON_DEMAND,
}
_RESIDENCY_MODES_IN = {number: mode for mode, number in _RESIDENCY_MODES.items()}
_PRIORITIES = {one: types_pb2.Priority.Value(f"PRIORITY_{one.name}") for one in Priority}
_PRIORITIES_IN = {number: one for one, number in _PRIORITIES.items()}
_REPLICA_STATES_IN = {
    types_pb2.ReplicaState.Value(f"REPLICA_STATE_{state}"): state for state in ReplicaState
}
_WORKER_STATES_IN = {
    fleet_pb2.WorkerState.Value(f"WORKER_STATE_{state}"): state for state in WorkerState
}


def key_in(key: types_pb2.VersionKey) -> VersionKey:
    return VersionKey(key.model, key.version)


def key_out(key: VersionKey) -> types_pb2.VersionKey:
    return types_pb2.VersionKey(model=key.model, version=key.number)


def token_in(token: types_pb2.FencingToken) -> FencingToken:
    return FencingToken(token.epoch, token.counter)


def token_out(token: FencingToken) -> types_pb2.FencingToken:
    return types_pb2.FencingToken(epoch=token.epoch, counter=token.counter)


def settings_in(settings: types_pb2.VersionSettings) -> VersionSettings:
    return VersionSettings(
        image_size=settings.image_size,
        confidence=settings.confidence if settings.HasField("confidence") else None,
        iou=settings.iou if settings.HasField("iou") else None,
        max_detections=settings.max_detections if settings.HasField("max_detections") else None,
        shape_policy=_SHAPE_POLICIES_IN.get(settings.shape_policy),
        head_mode=_HEAD_MODES_IN.get(settings.head_mode),
        output_layout=_LAYOUTS_IN.get(settings.output_layout),
        image_sizes=tuple(sorted({*settings.image_sizes} - {settings.image_size})),
    )


def settings_out(settings: VersionSettings) -> types_pb2.VersionSettings:
    policy, head = types_pb2.SHAPE_POLICY_UNSPECIFIED, types_pb2.HEAD_MODE_UNSPECIFIED
    if settings.head_mode is not None:
        head = _HEAD_MODES[settings.head_mode]
    layout = types_pb2.OUTPUT_LAYOUT_UNSPECIFIED
    if settings.output_layout is not None:
        layout = _LAYOUTS[settings.output_layout]
    if settings.shape_policy is not None:
        policy = _SHAPE_POLICIES[settings.shape_policy]
    return types_pb2.VersionSettings(
        image_size=settings.image_size,
        confidence=settings.confidence,
        iou=settings.iou,
        max_detections=settings.max_detections,
        shape_policy=policy,
        head_mode=head,
        output_layout=layout,
        image_sizes=settings.image_sizes,
    )


def residency_in(residency: types_pb2.Residency) -> Residency:
    """What is not said takes its default."""
    return Residency(
        mode=_RESIDENCY_MODES_IN.get(residency.mode, ResidencyMode.NORMAL),
        idle_release_s=residency.idle_release_s or IDLE_RELEASE_S,
        cpu_fallback=residency.cpu_fallback,
    )


def residency_out(residency: Residency) -> types_pb2.Residency:
    return types_pb2.Residency(
        mode=_RESIDENCY_MODES[residency.mode],
        idle_release_s=residency.idle_release_s,
        cpu_fallback=residency.cpu_fallback,
    )


def placement_in(placement: types_pb2.Placement) -> Placement:
    """What is not said takes its default."""
    return Placement(
        pool=placement.pool,
        labels=dict(placement.labels),
        max_replicas=placement.max_replicas,
        priority=_PRIORITIES_IN.get(placement.priority, Priority.NORMAL),
    )


def placement_out(placement: Placement) -> types_pb2.Placement:
    return types_pb2.Placement(
        pool=placement.pool,
        labels=placement.labels,
        max_replicas=placement.max_replicas,
        priority=_PRIORITIES[placement.priority],
    )


def rates_in(rates: types_pb2.Rates) -> Rates:
    return Rates(rates.fast, rates.middle, rates.slow)


def rates_out(rates: Rates) -> types_pb2.Rates:
    return types_pb2.Rates(fast=rates.fast, middle=rates.middle, slow=rates.slow)


def batching_in(batching: types_pb2.Batching) -> Batching:
    return Batching(
        batching.max_batch,
        tuple(batching.preferred_sizes),
        batching.max_delay_ms,
        batching.queue_capacity,
        batching.fixed,
    )


def batching_out(batching: Batching) -> types_pb2.Batching:
    return types_pb2.Batching(
        max_batch=batching.max_batch,
        preferred_sizes=batching.preferred_sizes,
        max_delay_ms=batching.max_delay_ms,
        queue_capacity=batching.queue_capacity,
        fixed=batching.fixed,
    )


def footprint_in(footprint: types_pb2.Footprint) -> Footprint:
    return Footprint(
        weights_bytes=footprint.weights_bytes,
        workspace_bytes=footprint.workspace_bytes,
        private_bytes=footprint.private_bytes,
        max_batch=footprint.max_batch,
        swap_ms=footprint.swap_ms,
        fetch_ms=footprint.fetch_ms,
    )


def footprint_out(footprint: Footprint) -> types_pb2.Footprint:
    return types_pb2.Footprint(
        weights_bytes=footprint.weights_bytes,
        workspace_bytes=footprint.workspace_bytes,
        private_bytes=footprint.private_bytes,
        max_batch=footprint.max_batch,
        swap_ms=footprint.swap_ms,
        fetch_ms=footprint.fetch_ms,
    )


# --- workers, as they report -------------------------------------------------------------------


# The words of a ledger are the same on both sides.
_LEDGER_FIELDS = tuple(field.name for field in fields(Ledger))


def ledger_in(ledger: types_pb2.Ledger) -> Ledger:
    return Ledger(**{name: getattr(ledger, name) for name in _LEDGER_FIELDS})


def ledger_out(ledger: Ledger) -> types_pb2.Ledger:
    return types_pb2.Ledger(**{name: getattr(ledger, name) for name in _LEDGER_FIELDS})


def load_in(load: types_pb2.LoadReport) -> LoadReport:
    return LoadReport(
        load.outstanding,
        load.queue_capacity,
        load.estimated_wait_ms,
        load.sequence,
        load.passes_total,
        load.images_total,
    )


def replica_in(
    replica: types_pb2.Replica, last: tuple[types_pb2.Replica, Replica] | None = None
) -> Replica:
    """A replica whose state this release does not know counts as being loaded.

    `last` is what was said of the same version before, and what was read of it: parts that are as
    they were are taken over.
    """
    said, known = last if last is not None else (None, None)
    footprint, variant, key = None, "", None
    if said is not None and known is not None:
        key = known.key
        footprint = known.footprint if replica.footprint == said.footprint else None
        variant = known.variant if replica.variant == said.variant else ""
    if footprint is None and replica.HasField("footprint"):
        footprint = footprint_in(replica.footprint)
    return Replica(
        key=key or key_in(replica.version),
        state=_REPLICA_STATES_IN.get(replica.state, ReplicaState.ASSIGNED),
        weights_bytes=replica.weights_bytes,
        workspace_bytes=replica.workspace_bytes,
        pinned=replica.pinned,
        outstanding=replica.outstanding,
        last_used_unix_s=replica.last_used_unix_s,
        requests_total=replica.requests_total,
        loads_total=replica.loads_total,
        inference_ms=replica.inference_ms,
        load_ms=replica.load_ms,
        reason=replica.reason,
        message=replica.message,
        variant=variant or _variant_in(replica.variant),
        pack=replica.pack,
        footprint=footprint,
        swaps_total=replica.swaps_total,
        rates=rates_in(replica.rates),
        queue_ms=replica.queue_ms,
        busy=replica.busy,
        hot_since_unix_s=replica.hot_since_unix_s,
        hits_total=replica.hits_total,
        batching=batching_in(replica.batching) if replica.HasField("batching") else None,
    )


def _variant_in(variant: types_pb2.Variant) -> str:
    return "/".join(filter(None, (variant.backend, variant.precision)))


def _variant_out(variant: str, device_kind: str = "") -> types_pb2.Variant:
    backend, _, precision = variant.partition("/")
    return types_pb2.Variant(backend=backend, precision=precision, device_kind=device_kind)


def worker_in(
    worker: fleet_pb2.Worker,
    lease_until_s: float,
    joined: WorkerInfo | None = None,
    ledger: Ledger | None = None,
    replicas: dict[VersionKey, Replica] | None = None,
) -> WorkerInfo:
    """A worker as it reports itself; static fields it leaves out are as it `joined`.

    lease_until_s: monotonic. A state this release does not know counts as STARTING. `ledger` and
    `replicas`: of this message, read already.
    """
    if replicas is None:
        replicas = {replica.key: replica for replica in map(replica_in, worker.replicas)}
    return WorkerInfo(
        id=worker.id,
        incarnation=worker.incarnation,
        address=worker.address or (joined.address if joined else ""),
        device=worker.device or (joined.device if joined else ""),
        device_kind=worker.device_kind or (joined.device_kind if joined else ""),
        state=_WORKER_STATES_IN.get(worker.state, WorkerState.STARTING),
        lease_until_s=lease_until_s,
        ledger=ledger if ledger is not None else ledger_in(worker.ledger),
        load=load_in(worker.load),
        replicas=replicas,
        device_name=worker.device_name or (joined.device_name if joined else ""),
        joined_unix_s=joined.joined_unix_s if joined else worker.joined_unix_s,
        labels=dict(worker.labels) or (joined.labels if joined else {}),
        release=worker.release or (joined.release if joined else ""),
        replaces_because=worker.replaces_because or (joined.replaces_because if joined else ""),
        # Empty is a word too, but of a message that has the static fields.
        io_addresses=(
            tuple(worker.io_addresses) if worker.address or joined is None else joined.io_addresses
        ),
        variant=_variant_in(worker.variant) or (joined.variant if joined else ""),
    )


# --- workers and versions, as callers see them ---------------------------------------------------


def replica_out(replica: Replica) -> types_pb2.Replica:
    return types_pb2.Replica(
        version=key_out(replica.key),
        variant=_variant_out(replica.variant),
        state=types_pb2.ReplicaState.Value(f"REPLICA_STATE_{replica.state}"),
        pinned=replica.pinned,
        weights_bytes=replica.weights_bytes,
        workspace_bytes=replica.workspace_bytes,
        outstanding=replica.outstanding,
        last_used_unix_s=replica.last_used_unix_s,
        requests_total=replica.requests_total,
        loads_total=replica.loads_total,
        inference_ms=replica.inference_ms,
        reason=replica.reason,
        message=replica.message,
        load_ms=replica.load_ms,
        pack=replica.pack,
        footprint=footprint_out(replica.footprint) if replica.footprint is not None else None,
        swaps_total=replica.swaps_total,
        rates=rates_out(replica.rates),
        queue_ms=replica.queue_ms,
        busy=replica.busy,
        hot_since_unix_s=replica.hot_since_unix_s,
        hits_total=replica.hits_total,
        batching=batching_out(replica.batching) if replica.batching is not None else None,
    )


def exit_out(exit: Exit) -> fleet_pb2.WorkerExit:
    return fleet_pb2.WorkerExit(
        ended=exit.ended,
        last_output=exit.last_output,
        in_a_row=exit.in_a_row,
        ran_s=exit.ran_s,
        restart_in_s=exit.restart_in_s,
        unix_s=exit.unix_s,
    )


def crashed_out(exit: Exit) -> fleet_pb2.Worker:
    """A worker of which only the end of its last process is known."""
    looping = fleet_pb2.WORKER_STATE_CRASH_LOOPING
    return fleet_pb2.Worker(
        id=exit.worker,
        device=exit.device,
        device_kind=exit.device_kind,
        state=looping if exit.is_loop else fleet_pb2.WORKER_STATE_LOST,
        last_exit=exit_out(exit),
    )


def worker_out(
    worker: WorkerInfo,
    load: LoadReport,
    now: float,
    cordoned: bool = False,
    exit: Exit | None = None,
) -> fleet_pb2.Worker:
    """now: monotonic seconds; `exit`: of the process before this one, if it ended by itself."""
    state = fleet_pb2.WorkerState.Value(f"WORKER_STATE_{worker.state}")
    if exit is not None and exit.is_loop and not worker.is_live(now):
        state = fleet_pb2.WORKER_STATE_CRASH_LOOPING
    return fleet_pb2.Worker(
        id=worker.id,
        incarnation=worker.incarnation,
        address=worker.address,
        device=worker.device,
        device_kind=worker.device_kind,
        device_name=worker.device_name,
        state=state,
        joined_unix_s=worker.joined_unix_s,
        lease_left_s=worker.lease_until_s - now,
        ledger=ledger_out(worker.ledger),
        load=types_pb2.LoadReport(
            outstanding=load.outstanding,
            queue_capacity=load.queue_capacity,
            estimated_wait_ms=load.estimated_wait_ms,
            sequence=load.sequence,
            passes_total=load.passes_total,
            images_total=load.images_total,
        ),
        replicas=[replica_out(worker.replicas[key]) for key in sorted(worker.replicas)],
        labels=worker.labels,
        release=worker.release,
        replaces_because=worker.replaces_because,
        cordoned=cordoned,
        last_exit=exit_out(exit) if exit is not None else None,
        io_addresses=worker.io_addresses,
        variant=_variant_out(worker.build.variant, worker.device_kind),
    )


def version_out(version: ModelVersion) -> model_pb2.ModelVersion:
    """What the store knows of a version; where it is loaded is the view's to add."""
    answer = model_pb2.ModelVersion(
        version=key_out(version.key),
        state=model_pb2.VersionState.Value(f"VERSION_STATE_{version.state}"),
        progress=version.progress,
        step=version.step,
        reason=version.reason,
        message=version.message,
        artifact=version.artifact,
        source_name=version.source_name,
        settings=settings_out(version.settings),
        created_unix_s=version.created_unix_s,
        residency=residency_out(version.given.residency),
        placement=placement_out(version.given.placement),
        batching={kind: batching_out(one) for kind, one in version.given.batching.items()},
        served={kind: served_out(one, kind) for kind, one in version.given.served.items()},
    )
    if version.given.build_of is not None:
        answer.build_of.CopyFrom(key_out(version.given.build_of))
    if version.pack is not None:
        answer.task = version.pack.task
        answer.class_names.extend(version.pack.class_names)
        answer.architecture = version.pack.architecture
        answer.weights_bytes = version.pack.weights_bytes
        answer.parameters = version.pack.parameters
        answer.warnings.extend(version.pack.warnings)
        answer.pack = version.pack.digest
        answer.gflops = version.pack.gflops
        answer.artifact_bytes = version.pack.artifact_bytes
        answer.pack_bytes = version.pack.pack_bytes
    return answer
