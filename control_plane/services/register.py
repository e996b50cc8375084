"""Makes every service and adds it to the gRPC server. No decisions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from control_plane.events.recorder import EventRecorder
from control_plane.fetching.intake import Intake
from control_plane.metrics.exposition import Metrics
from control_plane.models.builds import Builds
from control_plane.models.changeover import Changeovers
from control_plane.models.import_jobs import ImportJobs, Twins
from control_plane.models.loading import Loader
from control_plane.models.policies import Policies
from control_plane.models.registration import Registration
from control_plane.models.surplus import SurplusKeeper
from control_plane.models.sweeper import Sweeper
from control_plane.notifying.alerting import Alerting, new_id
from control_plane.reconcile.drainer import Drainer
from control_plane.rollout.alias_orders import AliasOrders
from control_plane.rollout.family_orders import FamilyOrders
from control_plane.rollout.gathered import Gathered
from control_plane.rollout.rollout_controller import Rollouts
from control_plane.routing.attempts import AttemptRunner
from control_plane.routing.beside import BesideRuns
from control_plane.routing.detect_call import BUSY, ENDED, LOST, DetectContext
from control_plane.routing.families.chooser import FamilyChooser
from control_plane.routing.quarantine import Quarantine
from control_plane.routing.request_log import RequestLog
from control_plane.routing.request_traces import RequestHistory
from control_plane.routing.router import Router
from control_plane.routing.tracing.telemetry import Telemetry
from control_plane.routing.worker_exits import WorkerExitHandler
from control_plane.services.alerts.alert_service import AlertService
from control_plane.services.benchmarks import BenchService
from control_plane.services.certificates import CertificateService
from control_plane.services.detection import DetectionService
from control_plane.services.events import EventService
from control_plane.services.explain import ExplainService
from control_plane.services.fleet import FleetService, Identity
from control_plane.services.keys import KeyService
from control_plane.services.models import ModelService
from control_plane.services.processes.imports import ImportService
from control_plane.services.processes.membership import MembershipService
from control_plane.services.processes.peers import PeerService
from control_plane.services.rollout.alias_service import AliasService
from control_plane.services.rollout.family_service import FamilyService
from control_plane.services.rollout.rollout_service import RolloutService
from control_plane.services.rules.rule_service import RuleService
from control_plane.services.schedules import ScheduleService
from control_plane.services.sources.watch_service import WatchService
from control_plane.services.tenants import TenantService
from control_plane.settings import Settings
from control_plane.sources.opening import Sources, read_logins
from control_plane.statistics.request_rates import RequestRates
from control_plane.store.alerts.alert_verbs import AlertSettings
from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.registry import Registry
from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.streams.detect_streams import DetectStreams
from control_plane.tenants.admission import Admission
from control_plane.tenants.deletion import Deletion
from control_plane.tenants.exchange import QuotaExchange
from control_plane.tenants.stored_bytes import StoredBytes
from control_plane.types.lease import FencingToken
from control_plane.types.snapshot import Snapshot
from control_plane.validation.evaluator import Evaluator
from control_plane.validation.validator import Validator
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from yolopool.server import logs
from yolopool.server.clock import Clock
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.open_calls import OpenCalls
from yolopool.v1 import (
    alerts_pb2_grpc,
    aliases_pb2_grpc,
    bench_pb2_grpc,
    certificates_pb2_grpc,
    detection_pb2_grpc,
    events_pb2_grpc,
    explain_pb2_grpc,
    families_pb2_grpc,
    fleet_pb2_grpc,
    importing_pb2_grpc,
    keys_pb2_grpc,
    membership_pb2_grpc,
    model_pb2_grpc,
    peer_pb2_grpc,
    rollouts_pb2_grpc,
    rules_pb2_grpc,
    schedule_pb2_grpc,
    tenants_pb2_grpc,
    watches_pb2_grpc,
)

SERVICES = (
    "yolopool.v1.AlertService",
    "yolopool.v1.AliasService",
    "yolopool.v1.BenchService",
    "yolopool.v1.CertificateService",
    "yolopool.v1.DetectionService",
    "yolopool.v1.EventService",
    "yolopool.v1.ExplainService",
    "yolopool.v1.FamilyService",
    "yolopool.v1.FleetService",
    "yolopool.v1.ImportService",
    "yolopool.v1.KeyService",
    "yolopool.v1.MembershipService",
    "yolopool.v1.ModelService",
    "yolopool.v1.PeerService",
    "yolopool.v1.RuleService",
    "yolopool.v1.RolloutService",
    "yolopool.v1.ScheduleService",
    "yolopool.v1.TenantService",
    "yolopool.v1.WatchService",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What the services call. `snapshot` returns what the next plan will look at."""

    settings: Settings
    identity: Identity
    clock: Clock
    registry: Registry
    view: View
    refresh: Refresh
    artifacts: FolderArtifacts
    metrics: Metrics
    recorder: EventRecorder
    worker_client: WorkerClient
    loader: Loader
    changeovers: Changeovers
    sweeper: Sweeper
    drainer: Drainer
    quarantine: Quarantine
    worker_exits: WorkerExitHandler
    snapshot: Callable[[], Snapshot]
    calls: OpenCalls
    is_leader: Callable[[], bool]
    token: Callable[[], FencingToken | None]
    another_leads: Callable[[], bool]
    acting_token: Callable[[], FencingToken | None]
    budget: ByteBudget
    alerting: Alerting


class Services:
    """`add_to` a server before it starts, and `close` when it stops; `telemetry` after the last
    call. `quotas`, `validator`, `surplus`, `intake`, `rollouts` and `telemetry` are to be run.
    """

    def __init__(self, deps: Dependencies) -> None:
        settings, registry, view, clock = deps.settings, deps.registry, deps.view, deps.clock
        deadline_s, loader, artifacts = settings.default_deadline_s, deps.loader, deps.artifacts
        refresh = deps.refresh
        history = RequestHistory()
        twins = Twins(view, artifacts)
        jobs = ImportJobs(registry, view, refresh, artifacts, twins, clock, view.admit)
        admission = Admission(view, clock)
        self.quotas = QuotaExchange(
            deps.identity.name, admission, registry, view, deps.metrics, deps.is_leader, clock
        )
        context, gathered = _detect_context(deps, admission), Gathered()
        self._beside = BesideRuns(
            view, context.attempts, context.quarantine, gathered, clock, Random()
        )
        families = FamilyChooser(view, clock, Random())
        requests = RequestLog(_lines(settings, clock), settings.sampling, clock.unix)
        rates = RequestRates()
        self.telemetry = Telemetry(settings, deps.identity.name, deps.metrics, clock)
        traces = self.telemetry.traces
        counts = deps.alerting.counts
        router = Router(context, history, requests, rates, traces, self._beside, families, counts)
        family_orders = FamilyOrders(registry, view, refresh, deps.recorder, clock)
        self._families = FamilyService(view, family_orders, families)
        orders = AliasOrders(registry, view, refresh, deps.recorder, clock)
        self._aliases = AliasService(view, orders, clock)
        self.rollouts = Rollouts(
            deps.identity.name,
            registry,
            view,
            refresh,
            orders,
            gathered,
            deps.recorder,
            clock,
            deps.acting_token,
        )
        self._rollouts = RolloutService(
            registry, view, refresh, self.rollouts, gathered, deps.recorder, clock
        )
        alerting = deps.alerting
        self._alerts = AlertService(
            alerting.controller,
            alerting.sender,
            alerting.caller,
            AlertSettings(registry),
            view,
            refresh,
            clock,
            new_id,
        )
        self._bench = BenchService(view, loader, deps.worker_client, clock, Random())
        self._detection = DetectionService(
            router,
            clock,
            deadline_s,
            settings.max_image_bytes,
            settings.max_raw_bytes,
            DetectStreams(
                view,
                deps.metrics,
                clock,
                deps.calls,
                deadline_s,
                deps.budget,
                settings.max_streams,
                settings.grpc_message_timeout_s,
            ),
            admission,
        )
        self._events = EventService(registry, view)
        self._explain = ExplainService(view, deps.snapshot, history, clock)
        self._fleet = FleetService(
            deps.identity, view, refresh, deps.metrics, jobs, registry, deps.drainer, rates, clock
        )
        self._imports = ImportService(jobs, artifacts)
        self._keys = KeyService(registry, view, refresh, clock)
        self._certificates = CertificateService(settings, registry, view, refresh, clock)
        self._membership = MembershipService(
            view,
            registry,
            deps.worker_client,
            deps.worker_exits,
            clock,
            settings.heartbeat_interval_s,
            settings.lease_s,
        )
        builds = Builds(registry, view, refresh, artifacts, clock)
        registration = Registration(
            registry,
            view,
            refresh,
            artifacts,
            twins,
            builds,
            deps.recorder,
            clock,
            settings.signers(),
        )
        stored = StoredBytes(view, artifacts.held_bytes)
        sources = Sources(
            settings.source_rules(),
            read_logins(settings.source_netrc),
            artifacts.scratch,
            settings.max_artifact_bytes,
        )
        self.intake = Intake(
            settings,
            sources,
            registry,
            registration,
            artifacts,
            stored,
            view,
            refresh,
            deps.recorder,
            clock,
            deps.is_leader,
            deps.another_leads,
        )
        self._watches = WatchService(SourceRecords(registry), sources, view, refresh, clock)
        self._models = _model_service(deps, registration, builds, stored, sources)
        self._rules = RuleService(registry, view, refresh, artifacts, stored, clock)
        self.surplus = SurplusKeeper(view, registration, deps.is_leader)
        self.validator = Validator(
            registry,
            view,
            refresh,
            artifacts,
            Evaluator(router, clock),
            loader,
            deps.recorder,
            clock,
            deps.token,
        )
        self._peers = PeerService(view, loader, clock, Random(), deadline_s)
        self._schedules = ScheduleService(registry, view, refresh, clock)
        deletion = Deletion(registry, view, refresh, registration.delete_all, clock)
        self._tenants = TenantService(registry, view, refresh, deletion, clock)

    def add_to(self, server: Any) -> None:
        """`server`: of gRPC, or what takes the methods of services as one does."""
        alerts_pb2_grpc.add_AlertServiceServicer_to_server(self._alerts, server)
        aliases_pb2_grpc.add_AliasServiceServicer_to_server(self._aliases, server)
        bench_pb2_grpc.add_BenchServiceServicer_to_server(self._bench, server)
        certificates_pb2_grpc.add_CertificateServiceServicer_to_server(self._certificates, server)
        detection_pb2_grpc.add_DetectionServiceServicer_to_server(self._detection, server)
        events_pb2_grpc.add_EventServiceServicer_to_server(self._events, server)
        explain_pb2_grpc.add_ExplainServiceServicer_to_server(self._explain, server)
        families_pb2_grpc.add_FamilyServiceServicer_to_server(self._families, server)
        fleet_pb2_grpc.add_FleetServiceServicer_to_server(self._fleet, server)
        importing_pb2_grpc.add_ImportServiceServicer_to_server(self._imports, server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(self._keys, server)
        membership_pb2_grpc.add_MembershipServiceServicer_to_server(self._membership, server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self._models, server)
        peer_pb2_grpc.add_PeerServiceServicer_to_server(self._peers, server)
        rules_pb2_grpc.add_RuleServiceServicer_to_server(self._rules, server)
        rollouts_pb2_grpc.add_RolloutServiceServicer_to_server(self._rollouts, server)
        schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(self._schedules, server)
        tenants_pb2_grpc.add_TenantServiceServicer_to_server(self._tenants, server)
        watches_pb2_grpc.add_WatchServiceServicer_to_server(self._watches, server)

    async def close(self) -> None:
        """Ends the streams of frames and of events, and what runs beside."""
        self._detection.close()
        await self._events.close()
        await self._beside.close()


def _lines(settings: Settings, clock: Clock) -> Callable[[bytes], object] | None:
    """Where the request log goes. Raises OSError for a file that can't be opened."""
    if not settings.request_log:
        return logs.json_lines()
    return logs.lines_to(
        Path(settings.request_log).expanduser(),
        settings.request_log_max_bytes,
        settings.request_log_max_age_s,
        settings.request_log_kept,
        clock.unix,
    )


def _detect_context(deps: Dependencies, admission: Admission) -> DetectContext:
    sent_again = sorted(LOST | ENDED | BUSY)
    deps.metrics.begin(("yolopool_retries_total", (("reason", why),)) for why in sent_again)
    return DetectContext(
        deps.view,
        AttemptRunner(deps.view, deps.worker_client, deps.clock),
        deps.loader,
        deps.quarantine,
        deps.metrics,
        deps.clock,
        Random(),
        admission,
    )


def _model_service(
    deps: Dependencies,
    registration: Registration,
    builds: Builds,
    stored: StoredBytes,
    sources: Sources,
) -> ModelService:
    registry, view, artifacts, clock = deps.registry, deps.view, deps.artifacts, deps.clock
    refresh = deps.refresh
    return ModelService(
        view,
        artifacts,
        registration,
        Policies(registry, view, refresh, clock),
        builds,
        deps.loader,
        deps.changeovers,
        deps.sweeper,
        stored,
        sources,
        clock,
    )
