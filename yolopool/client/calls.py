"""Every rpc of the clients as data: which method, which request, how long, how its reply is read.

Each function is a method of both clients, which differ in how they wait. Pure but for images.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack, get_args

from yolopool.client import explanations, fleet_records, model_records, requests
from yolopool.client.detections import Detections, from_response
from yolopool.client.images import ImageLike
from yolopool.client.requests import DetectOptions, ResidencyModeName
from yolopool.v1 import (
    alerts_pb2_grpc,
    aliases_pb2_grpc,
    bench_pb2_grpc,
    certificates_pb2_grpc,
    detection_pb2_grpc,
    events_pb2_grpc,
    explain_pb2,
    explain_pb2_grpc,
    families_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    keys_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    rollouts_pb2_grpc,
    rules_pb2_grpc,
    schedule_pb2_grpc,
    tenants_pb2_grpc,
    watches_pb2_grpc,
)

DETECT_TIMEOUT_S, READ_TIMEOUT_S, CHANGE_TIMEOUT_S = 30.0, 10.0, 120.0
DRAIN_TIMEOUT_S = BENCH_TIMEOUT_S = 600.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """An rpc with one reply. `timeout_s` is its deadline, from when it is sent."""

    service: str
    method: str
    request: Any
    timeout_s: float
    read: Callable[[Any], Answer]


@dataclass(frozen=True, slots=True)
class StreamCall(Generic[Answer]):
    """An rpc that answers a stream of replies. Without `timeout_s` it has no deadline."""

    service: str
    method: str
    request: Any
    timeout_s: float | None
    read: Callable[[Any], Answer]


class Services:
    """The generated stubs on one channel, blocking or asyncio."""

    def __init__(self, channel: Any) -> None:
        self._stubs: dict[str, Any] = {
            "alerts": alerts_pb2_grpc.AlertServiceStub(channel),
            "aliases": aliases_pb2_grpc.AliasServiceStub(channel),
            "bench": bench_pb2_grpc.BenchServiceStub(channel),
            "certificates": certificates_pb2_grpc.CertificateServiceStub(channel),
            "families": families_pb2_grpc.FamilyServiceStub(channel),
            "detection": detection_pb2_grpc.DetectionServiceStub(channel),
            "model": model_pb2_grpc.ModelServiceStub(channel),
            "fleet": fleet_pb2_grpc.FleetServiceStub(channel),
            "events": events_pb2_grpc.EventServiceStub(channel),
            "explain": explain_pb2_grpc.ExplainServiceStub(channel),
            "keys": keys_pb2_grpc.KeyServiceStub(channel),
            "rules": rules_pb2_grpc.RuleServiceStub(channel),
            "rollouts": rollouts_pb2_grpc.RolloutServiceStub(channel),
            "schedule": schedule_pb2_grpc.ScheduleServiceStub(channel),
            "tenants": tenants_pb2_grpc.TenantServiceStub(channel),
            "watches": watches_pb2_grpc.WatchServiceStub(channel),
        }

    def method(self, call: Call[Any] | StreamCall[Any]) -> Any:
        """The stub's method that sends this call."""
        return getattr(self.stub(call.service), call.method)

    def stub(self, service: str) -> Any:
        return self._stubs[service]


def describe(
    method: Callable[..., Any], function: Callable[..., Any], stream_type: Any = None
) -> None:
    """Gives a client's method the name, docstring and signature of the function behind it."""
    signature = inspect.signature(function)
    answer = get_args(signature.return_annotation)[-1]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    method.__signature__ = signature.replace(  # type: ignore[attr-defined] # read by inspect
        parameters=[own, *signature.parameters.values()],
        return_annotation=answer if stream_type is None else stream_type[answer],
    )


# --- detection --------------------------------------------------------------------------------


def detect(image: ImageLike, model: str, **options: Unpack[DetectOptions]) -> Call[Detections]:
    timeout_s = options.pop("timeout_s", DETECT_TIMEOUT_S)
    request, source = requests.detect(image, model, options)
    with_masks = options.get("masks") != "none"
    read = partial(from_response, source=source, with_masks=with_masks)
    return Call("detection", "Detect", request, timeout_s, read)


# --- models -----------------------------------------------------------------------------------


def model(model: str) -> Call[model_records.Model]:
    """One model with all its versions; for name@version, with that version alone."""
    request, of = model_pb2.GetModelRequest(model=model), model_records.model_of
    return Call("model", "GetModel", request, READ_TIMEOUT_S, lambda reply: of(reply.model))


def load(
    model: str,
    *,
    replicas: int = 1,
    pin: bool = False,
    placement: model_records.Placement | None = None,
    wait: bool = True,
    timeout_s: float = CHANGE_TIMEOUT_S,
) -> Call[model_records.ModelVersion]:
    """Loads a version on this many workers ahead of its first request; `pin` keeps it loaded.

    With wait, returns when it is HOT there. A `placement` is set first, as `set_placement` does.
    """
    request = requests.load(model, replicas, pin, wait, placement)
    return Call("model", "LoadModel", request, timeout_s, _version)


def unload(
    model: str, *, wait: bool = True, force: bool = False, timeout_s: float = CHANGE_TIMEOUT_S
) -> Call[model_records.ModelVersion]:
    """Releases a version on every worker; with wait, returns when it is gone.

    It waits for the version's open requests. With `force` those fail with NotAssigned instead.
    """
    request = model_pb2.UnloadModelRequest(model=model, wait=wait, force=force)
    return Call("model", "UnloadModel", request, timeout_s, _version)


def set_residency(
    model: str,
    mode: ResidencyModeName,
    *,
    idle_release_s: float = 0.0,
    cpu_fallback: bool = False,
) -> Call[model_records.ModelVersion]:
    """Sets how a version is kept once it is loaded: "normal" (may be evicted), "hot-standby"
    (loaded and pinned) or "on-demand" (released after `idle_release_s` without a request; 0: 60 s).

    With `cpu_fallback` a CPU worker serves it where every accelerator failed to load it.
    """
    request = requests.residency(model, mode, idle_release_s, cpu_fallback)
    return Call("model", "SetResidency", request, READ_TIMEOUT_S, _version)


def set_placement(
    model: str, placement: model_records.Placement
) -> Call[model_records.ModelVersion]:
    """Sets where a version may run, on how many workers, and its priority."""
    message = requests.placement(placement)
    request = model_pb2.SetPlacementRequest(model=model, placement=message)
    return Call("model", "SetPlacement", request, READ_TIMEOUT_S, _version)


def set_batching(
    model: str, device_kind: str, batching: model_records.Batching | None
) -> Call[model_records.ModelVersion]:
    """Sets how a version is batched on one kind of device: cpu, cuda or sim.

    None returns to the settings that the workers were started with. Loaded replicas apply the
    change at once.
    """
    request = requests.batching(model, device_kind, batching)
    return Call("model", "SetBatching", request, READ_TIMEOUT_S, _version)


def set_variant(
    model: str,
    device_kind: str,
    variant: str,
    drift: model_records.Drift | None = None,
    *,
    unchecked: bool = False,
) -> Call[model_records.ModelVersion]:
    """Serves a version by one of its builds on cpu or cuda from now on.

    `variant` is backend/precision; empty returns to the default build, which the workers make.
    Replicas are reloaded after their queued requests. `drift` is recorded and sent with every
    answer. In reduced precision a build serves on the compute classes where it was compared
    (`drift.compute_class`); with `unchecked` on all of them.
    """
    request = requests.variant(model, device_kind, variant, drift, unchecked)
    return Call("model", "SetVariant", request, READ_TIMEOUT_S, _version)


# --- changeovers ----------------------------------------------------------------


def changeover(
    prepare: Sequence[str],
    release: Sequence[str] = (),
    *,
    replicas: int = 1,
    pin: bool = False,
    timeout_s: float = CHANGE_TIMEOUT_S,
) -> Call[model_records.Changeover]:
    """Loads all models of `prepare`, then releases those of `release`: all or nothing.

    Raises ChangeoverFailed (details: model, reason) or DeadlineExceeded if one cannot be loaded in
    time; the pool then keeps what it had.
    """
    request = requests.changeover(prepare, release, replicas, pin)
    return Call("model", "Changeover", request, timeout_s, model_records.changeover_of)


# --- the fleet --------------------------------------------------------------------------------


def workers(*, timeout_s: float = READ_TIMEOUT_S) -> Call[tuple[fleet_records.Worker, ...]]:
    """The workers sorted by id, with their memory ledgers and replicas."""
    request = fleet_pb2.ListWorkersRequest()
    return Call("fleet", "ListWorkers", request, timeout_s, fleet_records.workers_of)


def drain_worker(
    worker: str, *, wait: bool = True, timeout_s: float = DRAIN_TIMEOUT_S
) -> Call[tuple[str, ...]]:
    """Drains a worker: its models are loaded on others, then it ends. With wait, returns then.

    Returns as name@version the models that no other worker had room for.
    """
    request = fleet_pb2.DrainWorkerRequest(worker=worker, wait=wait)
    return Call(
        "fleet",
        "DrainWorker",
        request,
        timeout_s,
        lambda reply: model_records.names_of(reply.not_moved),
    )


def fleet() -> Call[fleet_records.Fleet]:
    """Totals of the whole pool."""
    request = fleet_pb2.GetFleetRequest()
    return Call("fleet", "GetFleet", request, READ_TIMEOUT_S, fleet_records.fleet_of)


def statistics() -> Call[tuple[fleet_records.VersionStatistics, ...]]:
    """The requests of the last minute by version, the busiest first, of those that came to the
    control plane that is asked.
    """
    request = fleet_pb2.GetStatisticsRequest()
    return Call("fleet", "GetStatistics", request, READ_TIMEOUT_S, fleet_records.statistics_of)


def bench(
    model: str,
    *,
    worker: str = "",
    device_kind: str = "",
    shapes: Sequence[tuple[int, int]] = (),
    batch_sizes: Sequence[int] = (),
    seconds: float = 0.0,
    image: str | Path | bytes | None = None,
    timeout_s: float = BENCH_TIMEOUT_S,
) -> StreamCall[fleet_records.BenchPoint]:
    """Measures forward passes on one worker, by shape (height, width) and batch size.

    Iterate over the points as they are measured: each is sent several times with more passes, and
    the last one counts. Options left out take the server's defaults. `image` is the path or bytes
    of an image file to run; None: rectangles on noise.
    """
    request = requests.bench(
        model,
        worker=worker,
        device_kind=device_kind,
        shapes=shapes,
        batch_sizes=batch_sizes,
        seconds=seconds,
        image=image,
    )
    return StreamCall("bench", "BenchModel", request, timeout_s, fleet_records.bench_point_of)


# --- events and explanations ------------------------------------------------------------------


def events(
    *,
    after: str = "",
    last: int = 0,
    kinds: Sequence[str] = (),
    model: str = "",
    worker: str = "",
    follow: bool = False,
) -> StreamCall[explanations.Event]:
    """What happened in the pool, oldest first: everything recorded, or what came `after` an event
    id, or the `last` so many; filtered by kinds ("ASSIGNED", ...), model and worker.

    With `follow` it goes on with new events and has no deadline. It ends when the control plane
    stops, and raises Unavailable when the control plane or the store is lost; resume with `after`.
    """
    request = explanations.events_asked(
        after=after, last=last, kinds=kinds, model=model, worker=worker, follow=follow
    )
    timeout_s = None if follow else READ_TIMEOUT_S
    return StreamCall("events", "WatchEvents", request, timeout_s, explanations.event_of)


def plan_load(
    model: str, *, replicas: int = 1, pin: bool = False
) -> Call[tuple[explanations.PlannedStep, ...]]:
    """What `load` would do now, in order; changes nothing. Empty: it is already loaded so."""
    request = explain_pb2.PlanLoadRequest(model=model, replicas=replicas, pin=pin)
    return Call("explain", "PlanLoad", request, READ_TIMEOUT_S, explanations.steps_of)


def explain_model(model: str) -> Call[explanations.ModelExplanation]:
    """Why a version is loaded where it is: who wants it, its demand, and a verdict by worker."""
    request = explain_pb2.ExplainModelRequest(model=model)
    return Call("explain", "ExplainModel", request, READ_TIMEOUT_S, explanations.model_of)


def explain_request(request_id: str) -> Call[tuple[explanations.RequestTrace, ...]]:
    """What happened to a recent request, newest first. Only the control plane that answered it
    knows.
    """
    request = explain_pb2.ExplainRequestRequest(request_id=request_id)
    return Call("explain", "ExplainRequest", request, READ_TIMEOUT_S, explanations.traces_of)


def _version(reply: Any) -> model_records.ModelVersion:
    return model_records.version_of(reply.version)
