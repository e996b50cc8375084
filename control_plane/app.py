"""The composition root: builds everything, owns the clock, starts and stops. No decisions."""

import asyncio
import json
import os
import random
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import structlog

from control_plane.clock import Clock
from control_plane.events.observer import FleetObserver
from control_plane.events.recorder import EventRecorder
from control_plane.http_server import HttpServer, build
from control_plane.leader.client import LeaderClient
from control_plane.leader.forwarding import LeaderForwarding
from control_plane.metrics import Metrics
from control_plane.models.builds import Builds
from control_plane.models.changeover import Changeovers
from control_plane.models.loading import Loader
from control_plane.models.preload import Preloader
from control_plane.models.schedule_controller import ScheduleController
from control_plane.reconcile.drainer import Drainer
from control_plane.reconcile.executor import Executor
from control_plane.reconcile.planner import projected
from control_plane.reconcile.reconciler import Reconciler, ReconcilerTimings
from control_plane.routing.attempts import AttemptRunner
from control_plane.routing.detect_call import DetectContext
from control_plane.routing.quarantine import Quarantine
from control_plane.routing.request_traces import RequestHistory
from control_plane.routing.router import Router
from control_plane.routing.worker_exits import WorkerExitHandler
from control_plane.services.benchmarks import BenchService
from control_plane.services.detection import DetectionService
from control_plane.services.events import EventService
from control_plane.services.explain import ExplainService
from control_plane.services.fleet import FleetService, Identity
from control_plane.services.imports import ImportService
from control_plane.services.membership import MembershipService
from control_plane.services.models import ModelService
from control_plane.services.peers import PeerService
from control_plane.services.readiness import ReadinessGate
from control_plane.services.schedules import ScheduleService
from control_plane.settings import Settings
from control_plane.store.artifacts import FolderArtifacts
from control_plane.store.backup import DesiredBackup
from control_plane.store.registry import Registry
from control_plane.types.event import EventKind
from control_plane.types.version import VersionKey
from control_plane.view.reflector import Reflector
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.errors import RegistryUnavailable
from yolopool.server.grpc_server import GrpcServer
from yolopool.server.logs import set_up_logs
from yolopool.server.parent_death import die_with_parent
from yolopool.server.process import settle, until_signal
from yolopool.v1 import (
    bench_pb2_grpc,
    detection_pb2_grpc,
    events_pb2_grpc,
    explain_pb2_grpc,
    fleet_pb2_grpc,
    importing_pb2_grpc,
    membership_pb2_grpc,
    model_pb2_grpc,
    peer_pb2_grpc,
    schedule_pb2_grpc,
)

log = structlog.get_logger()

SERVICES = (
    "yolopool.v1.BenchService",
    "yolopool.v1.DetectionService",
    "yolopool.v1.EventService",
    "yolopool.v1.ExplainService",
    "yolopool.v1.FleetService",
    "yolopool.v1.ImportService",
    "yolopool.v1.MembershipService",
    "yolopool.v1.ModelService",
    "yolopool.v1.PeerService",
    "yolopool.v1.ScheduleService",
)
# For open HTTP calls at the end, and before a task is cancelled again.
HTTP_GRACE_S, CANCEL_AGAIN_S = 2.0, 0.2
RESIGN_S = 1.0
LOAD_TICK_S = 0.5
# In the data directory.
COPY = "registry-copy.jsonl"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where this control plane listens, as host:port."""

    grpc: str
    http: str


class ControlPlane:
    """`start`, then `stop`. The registry is opened here and closed here."""

    def __init__(self, settings: Settings, registry: Registry, clock: Clock | None = None) -> None:
        clock = clock or Clock(time.monotonic, time.time)
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._settings = settings
        self._registry = registry
        self.view = View(clock)
        self._metrics = Metrics()
        self._link = WorkerClient()
        self._artifacts = FolderArtifacts(settings.data_dir / "store", settings.max_artifact_bytes)
        self._recorder = EventRecorder(name, registry, clock)
        # A store in memory ends with the process: there is nothing to restore.
        self._copy = DesiredBackup(settings.data_dir / COPY, clock) if settings.redis else None
        self._watch = Reflector(registry, self.view, self._copy, self._restored)
        self._leader_client = LeaderClient(self.view, name)
        self._loads = Loader(
            registry, self.view, self._leader_client, clock, settings.no_worker_grace_s
        )
        self._executor = self._build_errands(clock)
        timings = ReconcilerTimings(lease_s=settings.reconciler_lease_s, gather_s=settings.lease_s)
        self._reconciler = Reconciler(name, registry, self.view, self._executor, clock, timings)
        self._observer = FleetObserver(
            registry,
            self.view,
            self._recorder,
            lambda: self._reconciler.token,
            clock,
            settings.lease_s,
        )
        self._changeovers = Changeovers(registry, self.view, self._loads, self._recorder, clock)
        self._scheduler = ScheduleController(
            registry,
            self.view,
            self._changeovers,
            self._loads,
            self._recorder,
            clock,
            lambda: self._reconciler.is_leader,
        )
        self._preloader = Preloader(settings.load, registry, self.view, clock)
        self._drainer = Drainer(
            self.view, self._link, self._recorder, clock, lambda: self._reconciler.acting_token
        )
        opening = ReadinessGate(lambda: self.view.is_loaded)
        forwarding = LeaderForwarding(self._leader_client, self._watch.refresh)
        self._server = GrpcServer(SERVICES, [opening, forwarding])
        self._quarantine = Quarantine(
            registry, self._recorder, clock, settings.quarantine_s, self._works
        )
        exit_handler = WorkerExitHandler(
            self.view,
            self._link,
            self._quarantine,
            self._recorder,
            self._metrics,
            clock,
            lambda: self._reconciler.is_leader,
        )
        self._membership = MembershipService(
            self.view,
            registry,
            self._link,
            exit_handler,
            clock,
            settings.heartbeat_interval_s,
            settings.lease_s,
        )
        self._add_services(Identity(name, clock.unix()), clock)
        self._http = HttpServer(build(self.view, self._metrics, lambda: self._reconciler.is_leader))
        self._tasks: list[asyncio.Task[None]] = []
        self._deciding: asyncio.Task[None] | None = None

    def _works(self, key: VersionKey) -> bool:
        """Whether a device worked for a version in the last seconds, and its worker told of it."""
        return any(replica.busy > 0 for _, replica in self.view.replicas(key))

    def _restored(self, message: str) -> None:
        self._recorder.record(EventKind.RESTORED, message=message)

    def _build_errands(self, clock: Clock) -> Executor:
        return Executor(
            self.view,
            self._link,
            self._artifacts.pack_uri,
            self._metrics,
            self._recorder,
            clock,
            self._settings.load_timeout_s,
            self._settings.release_timeout_s,
        )

    def _add_services(self, identity: Identity, clock: Clock) -> None:
        settings, server = self._settings, self._server.server
        history = RequestHistory()
        detecting = DetectContext(
            self.view,
            AttemptRunner(self.view, self._link, clock),
            self._loads,
            self._quarantine,
            self._metrics,
            clock,
            random.Random(),
        )
        router = Router(detecting, history)
        importing = ImportService(self._registry, self.view, self._artifacts, clock)
        detection_pb2_grpc.add_DetectionServiceServicer_to_server(
            DetectionService(router, clock, settings.default_deadline_s, settings.max_image_bytes),
            server,
        )
        bench_pb2_grpc.add_BenchServiceServicer_to_server(
            BenchService(self.view, self._loads, self._link, clock, random.Random()), server
        )
        self._events = EventService(self._registry)
        events_pb2_grpc.add_EventServiceServicer_to_server(self._events, server)
        explain_pb2_grpc.add_ExplainServiceServicer_to_server(
            ExplainService(self.view, lambda: projected(self.view, self._executor), history, clock),
            server,
        )
        fleet_pb2_grpc.add_FleetServiceServicer_to_server(
            FleetService(
                identity,
                self.view,
                self._metrics,
                importing,
                self._registry,
                self._drainer,
                clock,
            ),
            server,
        )
        importing_pb2_grpc.add_ImportServiceServicer_to_server(importing, server)
        membership_pb2_grpc.add_MembershipServiceServicer_to_server(self._membership, server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(
                self._registry,
                self.view,
                self._artifacts,
                Builds(self._registry, self.view, self._artifacts, clock),
                self._loads,
                self._changeovers,
                self._recorder,
                clock,
            ),
            server,
        )
        schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(
            ScheduleService(self._registry, self.view, clock), server
        )
        peer_pb2_grpc.add_PeerServiceServicer_to_server(
            PeerService(
                self.view, self._loads, clock, random.Random(), settings.default_deadline_s
            ),
            server,
        )

    async def start(self) -> Addresses:
        """Listens, and begins to serve once desired state was read; OSError if a port is taken."""
        settings = self._settings
        await asyncio.to_thread(self._artifacts.prepare)
        http_port = self._http.bind(settings.http_host, settings.http_port)
        port = await self._server.start(settings.host, settings.port)
        self._reconciler.address = settings.advertise or _reachable(settings.host, port)
        self._spawn(self._http.serve(), "http")
        self._spawn(self._watch.run(), "watch")
        if self._copy is not None:
            self._spawn(
                self._copy.keep(lambda: self.view.is_loaded, self.view.frozen_desired), "copy"
            )
        self._spawn(self._membership.expire(), "leases")
        self._spawn(self._recorder.run(), "journal")
        self._spawn(self._observer.run(), "chronicler")
        self._spawn(self._drainer.run(), "departures")
        self._spawn(self._scheduler.run(), "schedules")
        self._spawn(self._preloader.run(), "declared")
        self._spawn(self._quarantine.follow(), "quarantine")
        self._deciding = asyncio.create_task(self._open(), name="decide")
        return Addresses(_address(settings.host, port), _address(settings.http_host, http_port))

    async def stop(self) -> None:
        """Gives up the lease, so that another decides at once, then refuses new calls and ends open
        ones and what is under way.
        """
        await self._resign()
        await asyncio.gather(self._events.close(), self._server.stop(self._settings.drain_grace_s))
        self._http.stop()
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=HTTP_GRACE_S)
        await _ended(self._tasks)
        await self._loads.close()
        if self._copy is not None and self.view.is_loaded:
            await self._copy.keep_now(self.view.frozen_desired())
        await self._leader_client.close()
        with suppress(RegistryUnavailable, TimeoutError):
            async with asyncio.timeout(RESIGN_S):
                await self._recorder.flush()
                await self._registry.close()
        await self._link.close()

    async def _resign(self) -> None:
        if self._deciding is not None:
            await _ended([self._deciding])
        try:
            async with asyncio.timeout(RESIGN_S):
                await self._changeovers.close()
                await self._reconciler.close()
        except (RegistryUnavailable, TimeoutError):
            log.info("the registry is away: its lease runs out by itself")

    async def _open(self) -> None:
        """Serves as soon as the view is loaded; then decides, for as long as it may."""
        while not self.view.is_loaded:
            await self.view.waiters.after(self.view.waiters.changes, LOAD_TICK_S)
        try:
            recorded = await self._registry.workers()
            if self.view.expected is not None:
                self.view.expected = frozenset(worker.id for worker in recorded)
        except RegistryUnavailable:
            log.info("the workers on record can't be read: they call by themselves")
        await self._server.set_serving(True)
        log.info("serving", models=len(self.view.catalogue.models))
        await self._reconciler.run()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancels tasks until they have ended: in the middle of a connect, the store's library may
    take a cancellation for a connection that failed, and go on.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_AGAIN_S)


def _reachable(host: str, port: int) -> str:
    """Where others reach a port that was bound, as far as it can be told from here."""
    return _address(socket.gethostname() if host in ("0.0.0.0", "::", "") else host, port)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def build_registry(settings: Settings) -> Registry:
    """Redis where a URL is given; else a store in memory, which says that it forgets."""
    if settings.redis:
        from control_plane.store.redis_registry import RedisRegistry

        return RedisRegistry(settings.redis, settings.redis_password.get_secret_value() or None)
    from control_plane.store.memory_registry import MemoryRegistry

    log.warning("STATE IS KEPT IN MEMORY: it ends with this process; give --redis to keep it")
    return MemoryRegistry()


async def run(settings: Settings) -> None:
    """Serves until a signal."""
    control_plane = ControlPlane(settings, build_registry(settings))
    addresses = await control_plane.start()
    settle()
    line = {"event": "listening", "grpc": addresses.grpc, "http": addresses.http}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    log.info("stopping", signal=await until_signal())
    await control_plane.stop()


def main(settings: Settings) -> int:
    """Returns the exit code."""
    set_up_logs("control_plane", settings.log_level, settings.log_json)
    if settings.die_with_parent:
        die_with_parent()
    try:
        asyncio.run(run(settings))
    except (OSError, ValueError) as error:
        # A port that is taken, a folder that can't be written, a URL that is none.
        log.error("can't start", why=str(error))
        return 1
    return 0
