"""Workers, replicas and ledgers between proto and types."""

from dataclasses import fields

from control_plane.convert.figures import figures_in, figures_out
from control_plane.convert.versions import (
    batching_in,
    batching_out,
    footprint_in,
    footprint_out,
    key_in,
    key_out,
    rates_in,
    rates_out,
)
from control_plane.types.version import VersionKey
from control_plane.types.worker import (
    Adaption,
    Ledger,
    LoadReport,
    Replica,
    WorkerExit,
    WorkerInfo,
    WorkerState,
)
from yolopool.v1 import fleet_pb2, types_pb2
from yolopool.vocabulary import ReplicaState

_REPLICA_STATES_IN = {
    types_pb2.ReplicaState.Value(f"REPLICA_STATE_{state}"): state for state in ReplicaState
}
# LOST is this side's word: no worker says it of itself.
_WORKER_STATES_IN = {
    fleet_pb2.WorkerState.Value(f"WORKER_STATE_{state}"): state
    for state in WorkerState
    if state is not WorkerState.LOST
}
# The field names of a ledger are the same on both sides.
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
    """A replica in a state that this release does not know counts as ASSIGNED.

    `last`: the previous message about the same version, and what was decoded from it. Parts that
    did not change are reused.
    """
    before, known = last if last is not None else (None, None)
    footprint, variant, key = None, "", None
    if before is not None and known is not None:
        key = known.key
        footprint = known.footprint if replica.footprint == before.footprint else None
        variant = known.variant if replica.variant == before.variant else ""
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
        self_test=replica.self_test,
        adaption=_adaption_in(replica.adaption) if replica.HasField("adaption") else None,
    )


def _adaption_in(adaption: types_pb2.Adaption) -> Adaption:
    return Adaption(
        adaption.max_batch, adaption.max_delay_ms, adaption.p99_ms, adaption.is_out_of_reach
    )


def _adaption_out(adaption: Adaption) -> types_pb2.Adaption:
    return types_pb2.Adaption(
        max_batch=adaption.max_batch,
        max_delay_ms=adaption.max_delay_ms,
        p99_ms=adaption.p99_ms,
        is_out_of_reach=adaption.is_out_of_reach,
    )


def _variant_in(variant: types_pb2.Variant) -> str:
    return "/".join(filter(None, (variant.backend, variant.precision)))


def _variant_out(variant: str, device_kind: str = "", compute_class: str = "") -> types_pb2.Variant:
    backend, _, precision = variant.partition("/")
    return types_pb2.Variant(
        backend=backend,
        precision=precision,
        device_kind=device_kind,
        compute_class=compute_class,
    )


def worker_in(
    worker: fleet_pb2.Worker,
    lease_until_s: float,
    joined: WorkerInfo | None = None,
    ledger: Ledger | None = None,
    replicas: dict[VersionKey, Replica] | None = None,
) -> WorkerInfo:
    """A worker as it reports itself; static fields that it leaves out are as it `joined`.

    lease_until_s: monotonic. A state that this release does not know counts as STARTING. `ledger`
    and `replicas`: of this message, if they were decoded already.
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
        # Empty means none, but only in a message that has the static fields.
        io_addresses=(
            tuple(worker.io_addresses) if worker.address or joined is None else joined.io_addresses
        ),
        variant=_variant_in(worker.variant) or (joined.variant if joined else ""),
        compute_class=worker.variant.compute_class or (joined.compute_class if joined else ""),
        figures=figures_in(worker.figures) if worker.HasField("figures") else None,
    )


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
        self_test=replica.self_test,
        adaption=_adaption_out(replica.adaption) if replica.adaption is not None else None,
    )


def exit_out(exit: WorkerExit) -> fleet_pb2.WorkerExit:
    return fleet_pb2.WorkerExit(
        ended=exit.ended,
        last_output=exit.last_output,
        in_a_row=exit.in_a_row,
        ran_s=exit.ran_s,
        restart_in_s=exit.restart_in_s,
        unix_s=exit.unix_s,
    )


def crashed_out(exit: WorkerExit) -> fleet_pb2.Worker:
    """A worker that has not joined here: only the exit of its last process is known."""
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
    exit: WorkerExit | None = None,
) -> fleet_pb2.Worker:
    """now: monotonic seconds; `exit`: of the process before this one, if it crashed."""
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
        variant=_variant_out(worker.build.variant, worker.device_kind, worker.compute_class),
        figures=figures_out(worker.figures) if worker.figures is not None else None,
    )
