"""The composition root: makes every part, owns the clock, starts and stops. No decisions."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from random import Random
from typing import Any

import structlog

from control_plane.addresses import Addresses, address_of, reachable
from control_plane.alerts.rule import AlertRule
from control_plane.alerts.table import RULES
from control_plane.console.console import Console
from control_plane.events.observer import FleetObserver
from control_plane.events.recorder import EventRecorder
from control_plane.gateway.dispatch import Dispatch
from control_plane.gateway.health.grpc_health import Health
from control_plane.gateway.health.model_readiness import ModelReadiness
from control_plane.gateway.http_doors import HttpDoors
from control_plane.gateway.kserve import grpc_door as kserve_grpc
from control_plane.gateway.kserve.operations import Operations
from control_plane.identity.guard import Guard
from control_plane.leader.client import LeaderClient
from control_plane.leader.election import LeaderElection
from control_plane.leader.forwarding import LeaderForwarding
from control_plane.metrics.exposition import Metrics
from control_plane.models.changeover import Changeovers
from control_plane.models.loading import Loader
from control_plane.models.preload import Preloader
from control_plane.models.schedule_controller import ScheduleController
from control_plane.models.sweeper import Sweeper
from control_plane.notifying.alert_controller import EVERY_S, Leading
from control_plane.notifying.alerting import Alerting
from control_plane.reconcile.drainer import Drainer
from control_plane.reconcile.executor import Executor
from control_plane.reconcile.fleet_figures import fleet_look
from control_plane.reconcile.planner import projected
from control_plane.reconcile.reconciler import Reconciler, ReconcilerTimings
from control_plane.rollout.switch_controller import SwitchController
from control_plane.routing.quarantine import Quarantine
from control_plane.routing.worker_exits import WorkerExitHandler
from control_plane.services.fleet import Identity
from control_plane.services.readiness import ReadinessGate
from control_plane.services.register import SERVICES, Dependencies, Services
from control_plane.settings import Settings
from control_plane.store.backup import DesiredBackup
from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.registry import Registry
from control_plane.types.event import EventKind
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.view.reflector import Reflector
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.errors import RegistryRefusesWrites
from yolopool.server.clock import Clock
from yolopool.server.grpc_server import GrpcServer
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.open_calls import OpenCalls
from yolopool.server.process import unique_name
from yolopool.server.time_limits import Stop, ended
from yolopool.tls.certificates import follow

log = structlog.get_logger()

# At a stop: how long open HTTP calls may take.
HTTP_GRACE_S = 2.0
# What a step of a stop may take, one that asks the store, and all beside the calls that are open.
STEP_S, STORE_S, STOP_S = 1.0, 2.0, 5.0
LOAD_TICK_S = 0.5
# Local copy of the registry, in the data directory.
COPY = "registry-copy.jsonl"


class ControlPlane:
    """`start`, then `stop`. It opens and closes the registry."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        clock: Clock | None = None,
        rules: Sequence[AlertRule] = RULES,
        alerts_every_s: float = EVERY_S,
    ) -> None:
        clock = clock or Clock(time.monotonic, time.time)
        identity = Identity(unique_name(), clock.unix())
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self.view = view = View(clock, signers=settings.signers())
        self._metrics = Metrics()
        self._certificates = settings.certificates()
        self._worker_client = WorkerClient(self._certificates)
        self._artifacts = FolderArtifacts(settings.data_dir / "store", settings.max_artifact_bytes)
        self._recorder = recorder = EventRecorder(
            identity.name, registry, clock, counted=self._metrics.event_recorded
        )
        # A store in memory ends with the process: there is nothing to restore.
        self._copy = DesiredBackup(settings.data_dir / COPY, clock) if settings.redis else None
        self._reflector = Reflector(registry, view, self._copy, self._restored, settings.strict)
        refresh = self._reflector.refresh
        pool_key = settings.pool_key.get_secret_value()
        self._leader_client = LeaderClient(view, identity.name, pool_key, self._certificates)
        grace_s = settings.no_worker_grace_s
        self._loader = Loader(registry, view, refresh, self._leader_client, clock, grace_s)
        self._changeovers = Changeovers(
            registry, view, refresh, self._loader, recorder, clock, self._projected
        )
        self._schedule_controller = ScheduleController(
            registry,
            view,
            refresh,
            self._changeovers,
            self._loader,
            recorder,
            clock,
            self._is_leader,
        )
        self._switches = SwitchController(
            registry, view, refresh, recorder, clock, lambda: self._election.acting_token
        )
        self._sweeper = Sweeper(view, refresh, self._artifacts, clock, settings.sweep_grace_s)
        self._preloader = Preloader(settings.load, registry, view, refresh, clock)
        self._executor = self._new_executor()
        self._election = LeaderElection(
            identity.name,
            registry,
            view,
            clock,
            settings.reconciler_lease_s,
            settings.gather_s,
            self._refused,
        )
        self._reconciler = Reconciler(
            self._election,
            registry,
            view,
            refresh,
            self._executor,
            clock,
            ReconcilerTimings(),
            self._metrics.planned,
        )
        self._observer = FleetObserver(
            registry, view, recorder, lambda: self._election.token, clock, settings.gather_s
        )
        self._alerting = Alerting(
            identity.name,
            registry,
            view,
            self._metrics,
            Leading(
                self._is_leader,
                lambda: self._election.acting_token,
                lambda: self._election.address,
            ),
            recorder,
            settings.webhook_rules(),
            clock,
            rules,
            alerts_every_s,
        )
        look = partial(fleet_look, view, self._election, self._executor, clock)
        self._metrics.watch(look, self._alerting.counts, settings.triton_metrics)
        self._drainer = Drainer(
            view, self._worker_client, recorder, clock, lambda: self._election.acting_token
        )
        self._quarantine = Quarantine(
            registry, recorder, clock, settings.quarantine_s, self._answers
        )
        self._worker_exits = self._new_worker_exits()
        self._guard = Guard(settings, registry, view, refresh, clock)
        self._calls = OpenCalls()
        self._budget = ByteBudget(settings.max_request_memory_bytes)
        self._services = self._new_services(identity)
        ready = ModelReadiness(view, clock, Random())
        self._server, self.dispatch = self._new_doors(ready)
        console = Console(settings, self.dispatch, self._guard, clock)
        self._http = HttpDoors(
            settings,
            view,
            self._metrics,
            self.dispatch,
            self._kserve,
            ready,
            self._certificates,
            self._guard,
            self._budget,
            console.routes(),
            console.sessions.key_of,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._deciding: asyncio.Task[None] | None = None

    def _new_executor(self) -> Executor:
        return Executor(
            self.view,
            self._worker_client,
            self._artifacts.pack_uri,
            self._metrics,
            self._recorder,
            self._clock,
            self._settings.load_timeout_s,
            self._settings.release_timeout_s,
        )

    def _new_worker_exits(self) -> WorkerExitHandler:
        return WorkerExitHandler(
            self.view,
            self._worker_client,
            self._quarantine,
            self._recorder,
            self._metrics,
            self._clock,
            self._is_leader,
        )

    def _new_services(self, identity: Identity) -> Services:
        return Services(
            Dependencies(
                settings=self._settings,
                identity=identity,
                clock=self._clock,
                registry=self._registry,
                view=self.view,
                refresh=self._reflector.refresh,
                artifacts=self._artifacts,
                metrics=self._metrics,
                recorder=self._recorder,
                worker_client=self._worker_client,
                loader=self._loader,
                changeovers=self._changeovers,
                sweeper=self._sweeper,
                drainer=self._drainer,
                quarantine=self._quarantine,
                worker_exits=self._worker_exits,
                snapshot=self._projected,
                calls=self._calls,
                is_leader=self._is_leader,
                token=lambda: self._election.acting_token,
                another_leads=lambda: bool(self._leader_client.leader()),
                acting_token=lambda: self._election.acting_token,
                budget=self._budget,
                alerting=self._alerting,
            )
        )

    def _new_doors(self, ready: ModelReadiness) -> tuple[GrpcServer, Dispatch]:
        """The gRPC server, and the same methods for the other doors."""
        readiness = ReadinessGate(self._is_loaded, lambda: self.view.unread_because)
        forwarding = LeaderForwarding(self._leader_client, self._reflector.refresh)
        health = Health(ready, self.view.waiters, self._guard.sees)
        names = (*SERVICES, kserve_grpc.SERVICE)
        interceptors = [*self._guard.interceptors(), readiness, forwarding]
        limits = self._settings.grpc_limits()
        server = GrpcServer(names, interceptors, limits, health, self._calls, self._budget)
        dispatch = Dispatch(interceptors, self._calls)
        self._services.add_to(server.server)
        self._services.add_to(dispatch)
        self._kserve = Operations(dispatch, self._guard.ask, self.view, self._clock, Random())
        kserve_grpc.add_to(self._kserve, server.server, self._budget)
        return server, dispatch

    def _projected(self) -> Snapshot:
        return projected(self.view, self._executor)

    def _is_loaded(self) -> bool:
        return self.view.is_loaded

    def _is_leader(self) -> bool:
        return self._election.is_leader

    def _answers(self, key: VersionKey) -> bool:
        """Whether a worker reported, in the last seconds, that a device worked for this version."""
        return any(replica.busy > 0 for _, replica in self.view.replicas(key))

    def _restored(self, message: str) -> None:
        self._recorder.record(EventKind.RESTORED, message=message)

    def _refused(self, error: RegistryRefusesWrites) -> None:
        kind, reason = EventKind.STORE_REFUSES_WRITES, error.reason
        self._recorder.record(kind, reason=reason, message=error.message)

    async def start(self) -> Addresses:
        """Listens at once, and serves once desired state was read; OSError if a port is taken."""
        settings = self._settings
        await asyncio.to_thread(self._artifacts.prepare)
        http_port = self._http.bind(settings.http_host, settings.http_port)
        host, own, pool = settings.host, self._certificates, ""
        if settings.pool_port is not None:
            pool = address_of(host, self._server.listen(host, settings.pool_port, own, True))
        port = await self._server.start(host, settings.port, own)
        peers = reachable(host, int(pool.rpartition(":")[2]) if pool else port)
        self._election.address = settings.advertise or peers
        self._spawn_all()
        self._deciding = asyncio.create_task(self._open(), name="decide")
        return Addresses(address_of(host, port), address_of(settings.http_host, http_port), pool)

    async def stop(self) -> None:
        """Says that it is not ready; gives up the lease, so that another control plane leads at
        once; then refuses new calls, and ends open ones and all background tasks. It returns within
        `stop_limit_s`, whatever the store, a worker or a disk does meanwhile.
        """
        grace_s, stop = self._settings.drain_grace_s, Stop(stop_limit_s(self._settings))
        self._http.drain()
        await self._resign(stop)
        await stop.step("open calls", self._end_calls(grace_s), grace_s + STEP_S)
        self._http.stop()
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=min(HTTP_GRACE_S, stop.left_s))
        if left := await ended(self._tasks, min(STEP_S, stop.left_s)):
            log.warning("left undone at the stop", what=", ".join(left), why="they do not end")
        await stop.step("loads", self._loader.close(), STEP_S)
        if self._copy is not None and self.view.is_loaded:
            copied = self._copy.keep_now(self.view.frozen_desired())
            await stop.step("the local copy of the registry", copied, STEP_S)
        await stop.step("calls to the leader", self._leader_client.close(), STEP_S)
        await stop.step("tenants' usage", self._services.quotas.close(), STORE_S)
        await stop.step("alerts", self._alerting.controller.close(), STORE_S)
        await stop.step("events", self._recorder.flush(), STORE_S)
        await stop.step("the registry", self._registry.close(), STEP_S)
        await stop.step("connections to workers", self._worker_client.close(), STEP_S)
        await stop.step("telemetry", self._services.telemetry.close(), STEP_S)

    async def _end_calls(self, grace_s: float) -> None:
        await asyncio.gather(self._services.close(), self._server.stop(grace_s))

    async def _resign(self, stop: Stop) -> None:
        if self._deciding is not None:
            await ended([self._deciding], min(STEP_S, stop.left_s))
        await self._server.set_serving(False)
        await stop.step("changeovers", self._changeovers.close(), STEP_S)
        await stop.step("commands", self._reconciler.close(), STEP_S)
        if not await stop.step("the lease", self._election.resign(), STORE_S):
            log.info("the leader's lease will expire by itself")

    async def _open(self) -> None:
        """Serves as soon as the view is loaded; then runs the reconciler."""
        while not self.view.is_loaded:
            await self.view.waiters.after(self.view.waiters.changes, LOAD_TICK_S)
        await self._election.expect_workers()
        await self._guard.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconciler.run())
            await self._services.intake.prepared()
            await self._server.set_serving(True)
            log.info("serving", models=len(self.view.catalogue.models))

    def _spawn_all(self) -> None:
        """Background tasks; HTTP first, since `stop` waits for it."""
        self._spawn(self._http.serve(), "http")
        self._spawn(self._reflector.run(), "reflector")
        if self._copy is not None:
            self._spawn(self._copy.keep(self._is_loaded, self.view.frozen_desired), "backup")
        self._spawn(self._worker_exits.expire_leases(), "leases")
        self._spawn(self._recorder.run(), "events")
        self._spawn(self._observer.run(), "observer")
        self._spawn(self._drainer.run(), "drains")
        self._spawn(self._schedule_controller.run(), "schedules")
        self._spawn(self._switches.run(), "aliases")
        self._spawn(self._services.rollouts.run(), "rollouts")
        self._spawn(self._preloader.run(), "preload")
        self._spawn(self._sweeper.run(), "sweeper")
        self._spawn(self._services.telemetry.run(), "telemetry")
        self._spawn(self._quarantine.follow(), "quarantine")
        self._spawn(self._services.quotas.run(), "quotas")
        self._spawn(self._services.validator.run(), "gates")
        self._spawn(self._services.surplus.run(), "surplus")
        self._spawn(self._services.intake.run(), "intake")
        self._spawn(self._alerting.controller.run(), "alerts")
        if self._certificates is not None:
            self._spawn(follow(self._certificates, self._renewed), "certificates")

    async def _renewed(self) -> None:
        """Further connections show the certificate that came."""
        log.info("certificates renewed")
        self._worker_client.renew()
        await self._leader_client.renew()
        self._http.renew()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


def stop_limit_s(settings: Settings) -> float:
    """Within so many seconds a control plane stops."""
    return settings.drain_grace_s + STOP_S
