"""A real control plane on loopback, and scripted workers and importers that speak the contract.

The workers are real gRPC servers that join, send heartbeats and keep a toy ledger; only the
forward pass is missing.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from control_plane.addresses import Addresses
from control_plane.alerts.rule import AlertRule
from control_plane.alerts.table import RULES
from control_plane.app import ControlPlane
from control_plane.notifying.alert_controller import EVERY_S
from control_plane.settings import Settings
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.store.registry import Registry
from worker.service.identity import Fence
from yolopool.errors import LedgerFull, NotAssigned, YolopoolError
from yolopool.server.clock import Clock
from yolopool.server.grpc_server import GrpcServer
from yolopool.status import error_from_rpc
from yolopool.v1 import (
    alerts_pb2_grpc,
    aliases_pb2_grpc,
    bench_pb2,
    bench_pb2_grpc,
    detection_pb2,
    detection_pb2_grpc,
    events_pb2_grpc,
    explain_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    importing_pb2,
    importing_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    schedule_pb2_grpc,
    types_pb2,
    worker_pb2,
    worker_pb2_grpc,
)

TRACE = "traceparent"
HOT, ASSIGNED = types_pb2.REPLICA_STATE_HOT, types_pb2.REPLICA_STATE_ASSIGNED
WARM = types_pb2.REPLICA_STATE_WARM
WEIGHTS = 100


class IoDoor:
    """What an I/O process of a worker is to a control plane."""

    def __init__(self, worker: "ScriptedWorker") -> None:
        self.server = GrpcServer([])
        self.infers = 0
        self._worker = worker

    async def infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        self.infers += 1
        return await self._worker.Infer(request, context)


class ScriptedWorker(worker_pb2_grpc.WorkerServiceServicer):
    """Holds as many models of WEIGHTS bytes as its budget has room for.

    `load_s` and `infer_s` are how long those take, `turn_s` how long a load then waits WARM; while
    `may_load` is not set, no load ends;
    `on_infer` and `on_assign` are errors to raise, `refuse` those of the loads of single versions;
    `found` is in every answer; with a `tier` it takes as many models more, which it reports WARM;
    `terms` are more of its ledger. Tokens are checked as workers do.
    """

    def __init__(self, name: str, models: int = 2, tier: int = 0, kind: str = "sim") -> None:
        self.name, self.budget, self.kind = name, models * WEIGHTS, kind
        self.tier = (models + tier) * WEIGHTS if tier else 0
        self.footprints: list[types_pb2.Footprint] = []
        self.terms: dict[str, int] = {}
        self.figures: fleet_pb2.WorkerFigures | None = None
        self.replaces_because = ""
        self.labels: dict[str, str] = {}
        self.compute_class = ""
        self.metadata: Any = None  # of a worker that has a key
        self.prefetched: list[str] = []
        self.incarnation = uuid4().hex
        self.replicas: dict[str, types_pb2.Replica] = {}
        self.assigned: list[str] = []
        self.released: list[str] = []
        self.inferred: list[worker_pb2.InferRequest] = []
        self.traceparents: list[str] = []
        self.cancelled = 0
        self.waiting = 0  # requests, as it reports them
        self.benched = 0
        self.forced: list[str] = []
        self.drained: list[types_pb2.FencingToken] = []
        self.inference_ms = 0.0
        self.load_s = self.turn_s = self.infer_s = 0.0
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.found = detection_pb2.DetectResponse(
            detections=[detection_pb2.Detection(class_name="circle", confidence=0.5)]
        )
        self.on_infer: YolopoolError | None = None
        self.on_assign: YolopoolError | None = None
        self.refuse: dict[str, YolopoolError] = {}
        self.control_plane = ""
        self.fence = Fence()
        self._sequence = 0
        self._pokes: list[asyncio.Event] = []
        self._server = GrpcServer([])
        self._beats: list[asyncio.Task[None]] = []
        self.io: dict[str, IoDoor] = {}

    async def add_io(self) -> str:
        """Another port for Infer, which it tells of; answers its address."""
        door = IoDoor(self)
        method = grpc.unary_unary_rpc_method_handler(
            door.infer,
            request_deserializer=worker_pb2.InferRequest.FromString,
            response_serializer=worker_pb2.InferResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            "yolopool.v1.WorkerService", {"Infer": method}
        )
        door.server.server.add_generic_rpc_handlers((service,))
        address = f"127.0.0.1:{await door.server.start('127.0.0.1', 0)}"
        self.io[address] = door
        return address

    async def start(self, *control_planes: str) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server.server)
        self.address = f"127.0.0.1:{await self._server.start('127.0.0.1', 0)}"
        self.control_plane = control_planes[0]
        for control_plane in control_planes:
            await self.join(control_plane)

    async def join(self, control_plane: str) -> None:
        joined = asyncio.Event()
        self._beats.append(asyncio.create_task(self._stay(control_plane, joined)))
        await asyncio.wait_for(joined.wait(), 5)

    async def die(self) -> None:
        """Ends at once, without a word."""
        await self.fall_silent()
        for server in (self._server, *(door.server for door in self.io.values())):
            await server.server.stop(0)

    async def fall_silent(self) -> None:
        """Sends no more heartbeats, and goes on answering."""
        for beats in self._beats:
            beats.cancel()
        await asyncio.gather(*self._beats, return_exceptions=True)

    def poke(self) -> None:
        """Sends a heartbeat at once."""
        for poke in self._pokes:
            poke.set()

    async def _stay(self, control_plane: str, joined: asyncio.Event) -> None:
        async with grpc.aio.insecure_channel(control_plane) as channel:
            stub = membership_pb2_grpc.MembershipServiceStub(channel)
            await stub.Join(
                membership_pb2.JoinRequest(worker=self.report()), timeout=5, metadata=self.metadata
            )
            async for _ in stub.Heartbeat(self._heartbeats(), metadata=self.metadata):
                joined.set()

    async def _heartbeats(self) -> AsyncIterator[membership_pb2.HeartbeatRequest]:
        self._pokes.append(poke := asyncio.Event())
        while True:
            yield membership_pb2.HeartbeatRequest(
                worker=self.report(), highest_token=self.fence.highest
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(poke.wait(), 0.2)
            poke.clear()

    def report(self) -> fleet_pb2.Worker:
        self._sequence += 1
        return fleet_pb2.Worker(
            id=self.name,
            incarnation=self.incarnation,
            address=self.address,
            device=f"{self.kind}:0",
            device_kind=self.kind,
            state=fleet_pb2.WORKER_STATE_READY,
            ledger=self.ledger(),
            load=types_pb2.LoadReport(
                outstanding=self.waiting,
                queue_capacity=8,
                sequence=self._sequence,
                passes_total=4,
                images_total=10,
            ),
            replicas=self.replicas.values(),
            replaces_because=self.replaces_because,
            labels=self.labels,
            io_addresses=self.io,
            variant=types_pb2.Variant(compute_class=self.compute_class),
            figures=self.figures,
        )

    def ledger(self) -> types_pb2.Ledger:
        return types_pb2.Ledger(
            budget_bytes=self.budget,
            weights_bytes=WEIGHTS * sum(one.state == HOT for one in self.replicas.values()),
            assignable_bytes=self.tier,
            **self.terms,
        )

    async def Assign(self, request: worker_pb2.AssignRequest, context: Any) -> Any:
        key = f"{request.version.model}@{request.version.version}"
        self.fence.check(request.token)
        self.assigned.append(key)
        if self.on_assign is not None:
            raise self.on_assign
        if key in self.refuse:
            raise self.refuse[key]
        room = max(self.budget, self.tier)
        if key not in self.replicas and WEIGHTS * (len(self.replicas) + 1) > room:
            raise LedgerFull(f"no room for {key}")
        if request.HasField("footprint"):
            self.footprints.append(request.footprint)
        replica = self._seat(request)
        replica.ClearField("batching")
        if request.HasField("batching"):
            replica.batching.CopyFrom(request.batching)
        self.poke()
        await asyncio.sleep(self.load_s)
        await self.may_load.wait()
        if request.reach == worker_pb2.REACH_WARM:
            self.prefetched.append(key)
            replica.state = WARM
            self.poke()
            return worker_pb2.AssignResponse(replica=replica, ledger=self.ledger())
        if self.turn_s:
            replica.state = WARM
            self.poke()
            await asyncio.sleep(self.turn_s)
        for other in self.replicas.values():  # the one that came first gives its place
            hot = sum(one.state == HOT for one in self.replicas.values())
            if other is not replica and other.state == HOT and (hot + 1) * WEIGHTS > self.budget:
                other.state = WARM
        replica.state, replica.pinned = HOT, request.pin
        replica.inference_ms = self.inference_ms
        replica.footprint.weights_bytes = WEIGHTS
        replica.footprint.max_batch = 1
        self.poke()
        return worker_pb2.AssignResponse(replica=replica, ledger=self.ledger())

    def _seat(self, request: worker_pb2.AssignRequest) -> types_pb2.Replica:
        """What it has of a version; of another build it has nothing, as a worker."""
        key = f"{request.version.model}@{request.version.version}"
        replica = types_pb2.Replica(
            version=request.version,
            state=ASSIGNED,
            weights_bytes=WEIGHTS,
            pinned=request.pin,
            pack=request.pack.digest,
            variant=request.variant,
        )
        there = self.replicas.get(key)
        if there is not None and (there.pack, there.variant) == (replica.pack, replica.variant):
            return there
        self.replicas[key] = replica
        return replica

    async def Release(self, request: worker_pb2.ReleaseRequest, context: Any) -> Any:
        key = f"{request.version.model}@{request.version.version}"
        self.fence.check(request.token)
        (self.forced if request.force else self.released).append(key)
        self.replicas.pop(key, None)
        self.poke()
        return worker_pb2.ReleaseResponse(ledger=self.ledger(), released_bytes=WEIGHTS)

    async def Infer(self, request: worker_pb2.InferRequest, context: Any) -> Any:
        self.traceparents += [of for name, of in context.invocation_metadata() if name == TRACE]
        key = f"{request.version.model}@{request.version.version}"
        if self.on_infer is not None:
            raise self.on_infer
        if key not in self.replicas:
            raise NotAssigned(f"{key} is not here")
        self.inferred.append(request)
        try:
            await asyncio.sleep(self.infer_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        # Any other release waits for its last tickets.
        if key in self.forced and key not in self.replicas:
            raise NotAssigned(f"{key} was taken", details={"forced": "true"})
        self._sequence += 1
        result = detection_pb2.DetectResponse(
            version=request.version,
            variant=self.replicas[key].variant if key in self.replicas else None,
            batch_size=1,
            timing=detection_pb2.Timing(inference_ms=2.0, queue_ms=1.0),
        )
        result.MergeFrom(self.found)
        return worker_pb2.InferResponse(
            result=result,
            load=types_pb2.LoadReport(sequence=self._sequence),
            ledger_used_bytes=WEIGHTS * len(self.replicas),
            device_ms=2.0,
        )

    async def Bench(
        self, request: worker_pb2.BenchRequest, context: Any
    ) -> AsyncIterator[bench_pb2.BenchPoint]:
        key = f"{request.version.model}@{request.version.version}"
        if key not in self.replicas:
            raise NotAssigned(f"{key} is not here")
        try:
            for batch in request.sweep.batch_sizes:
                await asyncio.sleep(self.infer_s)
                yield bench_pb2.BenchPoint(
                    batch=batch, passes=5, images_per_s=10.0 * batch, done=True
                )
        finally:
            self.benched += 1

    async def GetInventory(self, request: worker_pb2.GetInventoryRequest, context: Any) -> Any:
        return worker_pb2.GetInventoryResponse(
            worker=self.report(), highest_token=self.fence.highest
        )

    async def Drain(self, request: worker_pb2.DrainRequest, context: Any) -> Any:
        self.drained.append(request.token)
        await self.leave()
        return worker_pb2.DrainResponse()

    async def leave(self) -> None:
        """As at the end of a drain."""
        await self.fall_silent()
        async with grpc.aio.insecure_channel(self.control_plane) as channel:
            stub = membership_pb2_grpc.MembershipServiceStub(channel)
            request = membership_pb2.LeaveRequest(worker=self.name, incarnation=self.incarnation)
            await stub.Leave(request, timeout=5)


class Rig:
    """One control plane and its stubs; what it starts it stops. Another one may share its store:
    give it the registry of the first.
    """

    def __init__(
        self,
        folder: Path,
        registry: Registry | None = None,
        clock: Clock | None = None,
        rules: Sequence[AlertRule] = RULES,
        alerts_every_s: float = EVERY_S,
        **changes: Any,
    ) -> None:
        self.settings = Settings(
            **{
                "data_dir": folder, "port": 0, "http_port": 0, "heartbeat_interval_s": 0.2,
                "lease_s": 0.8, "no_worker_grace_s": 0.3, **changes,
            },
        )  # fmt: skip
        self.registry = registry or MemoryRegistry()
        self.plane = ControlPlane(self.settings, self.registry, clock, rules, alerts_every_s)
        self.store = folder / "store"
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Rig":
        self.addresses: Addresses = await self.plane.start()
        self._stack.push_async_callback(self.plane.stop)
        channel = grpc.aio.insecure_channel(self.addresses.grpc)
        await self._stack.enter_async_context(channel)
        self.alerts: Any = alerts_pb2_grpc.AlertServiceStub(channel)
        self.aliases: Any = aliases_pb2_grpc.AliasServiceStub(channel)
        self.bench: Any = bench_pb2_grpc.BenchServiceStub(channel)
        self.detection: Any = detection_pb2_grpc.DetectionServiceStub(channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(channel)
        self.fleet: Any = fleet_pb2_grpc.FleetServiceStub(channel)
        self.events: Any = events_pb2_grpc.EventServiceStub(channel)
        self.explain: Any = explain_pb2_grpc.ExplainServiceStub(channel)
        self.importing: Any = importing_pb2_grpc.ImportServiceStub(channel)
        self.schedules: Any = schedule_pb2_grpc.ScheduleServiceStub(channel)
        self.membership: Any = membership_pb2_grpc.MembershipServiceStub(channel)
        await self.plane.view.waiters.until("loaded", lambda: self.plane.view.is_loaded or None, 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def worker(
        self,
        name: str,
        models: int = 2,
        tier: int = 0,
        kind: str = "sim",
        also: Sequence[str] = (),
        compute_class: str = "",
        **labels: str,
    ) -> ScriptedWorker:
        """A worker that joins this control plane, and those at `also`."""
        one = ScriptedWorker(name, models, tier, kind)
        one.labels = labels
        one.compute_class = compute_class
        await one.start(self.addresses.grpc, *also)
        self._stack.push_async_callback(one.die)
        return one

    async def upload(self, data: bytes, *, offset: int = 0, digest: str = "") -> Any:
        """Sends data[offset:] under its digest, in chunks of five bytes."""
        sha256 = digest or hashlib.sha256(data).hexdigest()
        header = model_pb2.UploadHeader(sha256=sha256, size_bytes=len(data), offset=offset)

        async def parts() -> AsyncIterator[model_pb2.UploadArtifactRequest]:
            yield model_pb2.UploadArtifactRequest(header=header)
            for at in range(offset, len(data), 5):
                yield model_pb2.UploadArtifactRequest(chunk=data[at : at + 5])

        return await self.models.UploadArtifact(parts(), timeout=5)

    async def register(self, name: str, data: bytes = b"weights", **more: Any) -> Any:
        await self.upload(data)
        request = model_pb2.RegisterModelRequest(
            name=name, artifact=hashlib.sha256(data).hexdigest(), **more
        )
        return (await self.models.RegisterModel(request, timeout=10)).version

    async def import_next(self, failure: importing_pb2.ImportFailure | None = None) -> Any:
        """Does one import as an importer would; answers the job."""
        claim = importing_pb2.ClaimImportRequest(importer="i1", wait_s=5)
        job = (await self.importing.ClaimImport(claim, timeout=10)).job
        report = importing_pb2.ReportImportRequest(importer="i1", version=job.version)
        report.progress.fraction, report.progress.step = 0.5, "fuse"
        await self.importing.ReportImport(report, timeout=5)
        if failure is not None:
            report.failure.CopyFrom(failure)
        else:
            report.pack.CopyFrom(self.pack(job))
        await self.importing.ReportImport(report, timeout=5)
        return job

    def pack(self, job: importing_pb2.ImportJob) -> importing_pb2.ImportedPack:
        parts = {"skeleton.json": b"{}", "weights.bin": job.artifact.encode()}
        skeleton, weights = (hashlib.sha256(data).hexdigest() for data in parts.values())
        manifest = json.dumps(
            {
                "made_with": f"{job.settings} {job.build}",
                "architecture_key": skeleton,
                "weights_sha256": weights,
            }
        ).encode()
        digest = hashlib.sha256(manifest).hexdigest()
        folder = self.store / "packs" / digest
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in {**parts, "manifest.json": manifest}.items():
            (folder / name).write_bytes(data)
        settings = types_pb2.VersionSettings(
            image_size=1, confidence=0.25, iou=0.7, max_detections=300,
            shape_policy=types_pb2.SHAPE_POLICY_RECT,
        )  # fmt: skip
        return importing_pb2.ImportedPack(
            digest=digest, architecture="yolo", task="detect", class_names=["circle"],
            settings=settings, weights_bytes=WEIGHTS - 15, parameters=1,
            backend=job.build.backend, precision=job.build.precision, training={"epochs": "3"},
        )  # fmt: skip

    async def ready(self, *names: str) -> None:
        """Registers models and imports them, each from bytes of its own."""
        for name in names:
            await self.register(name, name.encode())
            await self.import_next()

    async def detect(self, model: str, timeout: float = 10, **more: Any) -> Any:
        more.setdefault("encoded", b"jpeg")
        request = detection_pb2.DetectRequest(model=model, **more)
        return await self.detection.Detect(request, timeout=timeout)

    async def keep(self, model: str, **fields: Any) -> Any:
        request = model_pb2.SetResidencyRequest(
            model=model, residency=types_pb2.Residency(**fields)
        )
        return (await self.models.SetResidency(request, timeout=5)).version

    def outstanding(self, worker: str, version: str) -> int:
        """Tickets of a replica as the control plane was told."""
        replicas = self.plane.view.workers[worker].replicas.values()
        return sum(one.outstanding for one in replicas if str(one.key) == version)

    def waits_for(self, version: str) -> str:
        """The reason why a version waits; empty: it does not."""
        waits = self.plane.view.waits.items()
        return next((wait.reason for key, wait in waits if str(key) == version), "")

    async def load(self, model: str, timeout: float = 10, **more: Any) -> Any:
        request = model_pb2.LoadModelRequest(model=model, wait=True, **more)
        return (await self.models.LoadModel(request, timeout=timeout)).version


async def refused(call: Any) -> YolopoolError:
    """The typed error of a call that must fail."""
    try:
        answer = await call
    except grpc.RpcError as error:
        return error_from_rpc(error)
    raise AssertionError(f"it was answered: {answer}")
