"""The calls of each step of an application, and of a schedule. Nothing is sent here."""

from collections.abc import Iterator

from yolopool.client import calls, model_records, requests
from yolopool.client.calls import Call
from yolopool.client.fleet_file.declared import (
    Batching,
    Check,
    Place,
    Placement,
    Preparation,
    Schedule,
)
from yolopool.client.fleet_file.fleet_steps import (
    LoadVersion,
    MakeBuild,
    ServeBuild,
    SetBatching,
    SetLabels,
    SetPlacement,
    SetResidency,
    VersionStep,
)
from yolopool.client.fleet_file.present import (
    PresentVersion,
    schedules_of,
    version_of,
    versions_of,
)
from yolopool.client.labels import labelling
from yolopool.v1 import model_pb2, rollouts_pb2, schedule_pb2, types_pb2

LIST_TIMEOUT_S = 60.0
VersionCall = Call[PresentVersion]


def calls_of(ref: str, step: VersionStep) -> Iterator[VersionCall]:
    """The calls of a step on one version, name@version; each answers the version."""
    match step:
        case SetLabels(put, drop):
            yield _of(labelling.set_labels(ref, put, drop))
        case SetResidency(_, after):
            yield _of(
                calls.set_residency(
                    ref,
                    after.mode,  # type: ignore[arg-type] # checked by the file's reader
                    idle_release_s=after.idle_release_s,
                    cpu_fallback=after.cpu_fallback,
                )
            )
        case SetPlacement(_, after):
            yield _of(calls.set_placement(ref, place_of(after)))
        case SetBatching(device, _, after):
            yield _of(calls.set_batching(ref, device, _batching(after)))
        case MakeBuild():
            yield _build(ref, step)
            yield get_call(ref)
        case ServeBuild():
            yield from _serve(ref, step)
        case LoadVersion(replicas, pin):
            yield _of(calls.load(ref, replicas=replicas, pin=pin, wait=False))


def versions_call(prefix: str) -> Call[tuple[PresentVersion, ...]]:
    """All versions of models whose names begin with this."""
    request = model_pb2.ListModelsRequest(name_prefix=prefix)
    return Call(
        "model", "ListModels", request, LIST_TIMEOUT_S, lambda reply: versions_of(reply.models)
    )


def schedules_call() -> Call[tuple[Schedule, ...]]:
    request = schedule_pb2.ListSchedulesRequest()
    return Call("schedule", "ListSchedules", request, calls.READ_TIMEOUT_S, schedules_of)


def running_call(prefix: str) -> Call[dict[str, int]]:
    """The aliases whose rollout runs, with the version that each would be rolled back to."""
    request = rollouts_pb2.ListRolloutsRequest(name_prefix=prefix)
    return Call(
        "rollouts",
        "ListRollouts",
        request,
        calls.READ_TIMEOUT_S,
        lambda reply: {one.alias: one.stable for one in reply.rollouts if one.running},
    )


def get_call(ref: str) -> VersionCall:
    request = model_pb2.GetModelRequest(model=ref)
    return Call(
        "model",
        "GetModel",
        request,
        calls.READ_TIMEOUT_S,
        lambda reply: version_of(reply.model.versions[0]),
    )


def _of(call: Call[model_records.ModelVersion]) -> VersionCall:
    """The same call, its answer as the plan has it."""
    return Call(
        call.service,
        call.method,
        call.request,
        call.timeout_s,
        lambda reply: version_of(reply.version),
    )


def _build(ref: str, step: MakeBuild) -> VersionCall:
    request = model_pb2.BuildModelRequest(
        model=ref,
        backend=step.build.backend,
        precision=step.build.precision,
        device_kind=step.build.device,
        calibration=step.calibration,
    )
    return Call(
        "model",
        "BuildModel",
        request,
        calls.CHANGE_TIMEOUT_S,
        lambda reply: version_of(reply.build),
    )


def _serve(ref: str, step: ServeBuild) -> Iterator[VersionCall]:
    for check in step.checks or (None,):
        drift = _drift(check) if check is not None else None
        yield _of(
            calls.set_variant(ref, step.device, step.variant, drift, unchecked=step.unchecked)
        )


def _drift(check: Check) -> model_records.Drift:
    names = model_records.Drift.__slots__
    return model_records.Drift(**{name: getattr(check, name) for name in names})


def place_of(place: Placement) -> model_records.Placement:
    return model_records.Placement(place.pool, place.labels, place.max_replicas, place.priority)


def _batching(asked: Batching | None) -> model_records.Batching | None:
    if asked is None:
        return None
    return model_records.Batching(
        asked.max_batch,
        asked.preferred_sizes,
        asked.max_delay_ms,
        asked.queue_capacity,
        asked.fixed,
        asked.p99_goal_ms,
    )


def schedule_call(schedule: Schedule) -> Call[None]:
    """Makes or replaces a schedule."""
    change = model_pb2.ChangeoverRequest(
        prepare=[_preparation(one) for one in schedule.load], release=schedule.release
    )
    request = schedule_pb2.SetScheduleRequest(
        schedule=schedule_pb2.Schedule(
            name=schedule.name,
            cron=schedule.cron,
            time_zone=schedule.time_zone,
            lead_s=schedule.lead_s,
            change=change,
            sun=schedule.sun,
            place=_place(schedule.place) if schedule.place is not None else None,
        )
    )
    return Call("schedule", "SetSchedule", request, calls.READ_TIMEOUT_S, lambda reply: None)


def _place(place: Place) -> types_pb2.Place:
    return types_pb2.Place(latitude=place.latitude, longitude=place.longitude)


def _preparation(one: Preparation) -> model_pb2.LoadModelRequest:
    where = place_of(one.placement) if one.placement is not None else None
    return requests.load(one.model, one.replicas, one.pin, False, where)
