"""The one place that knows how the product's shells are built and what they say of themselves.

All decisions and shells are the product's: view, reconciler, errands and loads of a control plane;
replicas, swaps and engine of a worker. What a change of theirs touches here is this file alone.
"""

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from benchmarks.simulation.clock import VirtualLoop
from benchmarks.simulation.device import SIDE, Store, VirtualBackend, VirtualEngine, VirtualPacks
from control_plane.events.recorder import EventRecorder
from control_plane.leader.client import LeaderClient
from control_plane.leader.election import LeaderElection
from control_plane.metrics.exposition import Metrics
from control_plane.models.loading import Loader
from control_plane.reconcile.executor import Executor
from control_plane.reconcile.reconciler import Reconciler, ReconcilerTimings
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.footprint import Footprint
from control_plane.types.version import VersionKey
from control_plane.types.worker import Ledger, LoadReport, Replica, WorkerInfo, WorkerState
from control_plane.view.reflector import Reflector
from control_plane.view.view import View
from control_plane.view.waiters import Waiters
from control_plane.worker_client import WorkerClient
from worker.backends.simulated import TimeCurve
from worker.replicas import ledger as worker_ledger
from worker.replicas import replica as worker_replica
from worker.replicas.pack_reader import TierLimits
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper
from yolopool.server.clock import Clock
from yolopool.server.clock import Clock as WorkerClock
from yolopool.v1 import types_pb2
from yolopool.v1.worker_pb2 import PackLocation
from yolopool.vocabulary import INPUT_BYTES_PER_PIXEL, ReplicaState

# Of the fleet, as the settings' defaults have it.
HEARTBEAT_S, LEASE_S = 1.0, 3.0
# Rates of what is not asked for are looked at so often.
LOOK_S = 5.0
LOAD_TIMEOUT_S, RELEASE_TIMEOUT_S = 120.0, 60.0
NO_WORKER_GRACE_S = 10.0
QUEUE_CAPACITY, MAX_BATCH = 64, 16
# What one plan takes a control plane: changes that come meanwhile are seen by the next.
PLAN_S = 0.010
UNIX_S = 1_000_000.0  # the time of day when a simulation begins


@dataclass(frozen=True, slots=True)
class Shape:
    """One device: room for weights, and whether there is a tier beneath it: replicas may be WARM
    then, and are read from the local pack cache when their turn comes. Else all that is assigned
    is on the device, and what left is fetched from the store again. `curve`: what passes and copies
    take; None: as assumed of a GPU.
    """

    room_bytes: int
    beneath: bool
    curve: TimeCurve | None = None
    max_batch: int = MAX_BATCH


class PacedWaiters(Waiters):
    """As the control plane's, for a planner that takes its time."""

    async def after(self, seen: int, timeout_s: float) -> None:
        await self.until("plan", lambda: None, PLAN_S)
        await super().after(seen, timeout_s - PLAN_S)


class Brain:
    """A control plane without its doors."""

    def __init__(self, loop: VirtualLoop, link: WorkerClient) -> None:
        self.clock = Clock(loop.time, lambda: UNIX_S + loop.time())
        self.registry = MemoryRegistry(self.clock.unix, self.clock.monotonic)
        self.view = View(self.clock, PacedWaiters())
        leader_client = LeaderClient(self.view, "brain")
        self.watch = Reflector(self.registry, self.view, None, lambda _: None)
        refresh = self.watch.refresh
        self.loads = Loader(
            self.registry, self.view, refresh, leader_client, self.clock, NO_WORKER_GRACE_S
        )
        executor = Executor(
            self.view,
            link,
            lambda digest: f"sim://{digest}",
            Metrics(),
            EventRecorder("brain", self.registry, self.clock),
            self.clock,
            LOAD_TIMEOUT_S,
            RELEASE_TIMEOUT_S,
        )
        election = LeaderElection("brain", self.registry, self.view, self.clock, gather_s=0.0)
        self.reconciler = Reconciler(
            election, self.registry, self.view, refresh, executor, self.clock, ReconcilerTimings()
        )


class Hands:
    """A worker without its doors. `moved` is called when a model came to the device or left it,
    `took` what fetching or reading took, both with the digest of the pack.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        shape: Shape,
        store: Store,
        changed: Callable[[], None],
        moved: Callable[[str, bool], None],
        took: Callable[[str, float], None],
    ) -> None:
        self.shape = shape
        self.held: dict[str, worker_replica.Replica] = {}
        clock = WorkerClock(loop.now, lambda: UNIX_S + loop.time())
        self.engine = VirtualEngine(QUEUE_CAPACITY, loop)
        self.backend = VirtualBackend(loop, moved, shape.curve)
        packs = VirtualPacks(store, loop, keeps=shape.beneath, took=took)
        context = self.backend.open()
        # Beyond the weights: input of the largest batch, as bytes and as float32.
        budget = context + shape.room_bytes + SIDE * SIDE * shape.max_batch * INPUT_BYTES_PER_PIXEL
        self.swapper = Swapper(
            self.engine,
            self.backend,
            packs,
            worker_ledger.Ledger(budget, context_bytes=context),
            TierLimits(has_host_tier=shape.beneath, host_bytes=0, fetch_weights=True),
            self.held,
            changed,
            clock,
        )
        self.replicas = ReplicaTable(
            self.held,
            self.swapper,
            self.engine,
            packs.prepare,
            shape.max_batch,
            self.assignable_bytes or budget,
            changed,
            clock,
        )

    @property
    def assignable_bytes(self) -> int:
        return 2**50 if self.shape.beneath else 0


def order_of(
    key: VersionKey, digest: str, pinned: bool, known: Footprint | None, warm: bool
) -> worker_replica.Assignment:
    """What an Assign asks of a worker."""
    measured = None
    if known is not None:
        measured = types_pb2.Footprint(
            weights_bytes=known.weights_bytes,
            workspace_bytes=known.workspace_bytes,
            private_bytes=known.private_bytes,
            max_batch=known.max_batch,
            swap_ms=known.swap_ms,
            fetch_ms=known.fetch_ms,
        )
    return worker_replica.Assignment(
        key=str(key),
        model=key.model,
        number=key.number,
        settings=types_pb2.VersionSettings(image_size=SIDE),
        pack=PackLocation(uri=f"sim://{digest}", digest=digest),
        precision="fp32",
        max_batch=MAX_BATCH,
        pinned=pinned,
        known=measured,
        warm=warm,
    )


class Herald:
    """What a worker says in its heartbeats. Of replicas that did nothing since the last it says
    the same as before; rates of those that are asked for no more it looks at every few heartbeats.
    """

    def __init__(self, hands: Hands, loop: VirtualLoop) -> None:
        self._hands = hands
        self._loop = loop
        self._said: dict[str, tuple[tuple[object, ...], Replica]] = {}

    def worker(self, id_: str, incarnation: str, state: WorkerState) -> WorkerInfo:
        ledger = self._hands.swapper.ledger
        replicas = {}
        for one in self._hands.replicas.held():
            said = self._replica(one)
            replicas[said.key] = said
        self._said = {key: said for key, said in self._said.items() if key in self._hands.held}
        return WorkerInfo(
            id=id_,
            incarnation=incarnation,
            address=f"{id_}:1",
            device="sim:0",
            device_kind="sim",
            state=state,
            lease_until_s=self._loop.time() + LEASE_S,
            ledger=Ledger(
                budget_bytes=ledger.budget_bytes,
                context_bytes=ledger.context_bytes,
                weights_bytes=ledger.weights_bytes,
                workspace_bytes=ledger.workspace_bytes,
                backend_private_bytes=ledger.private_bytes,
                load_transient_bytes=ledger.load_transient_bytes,
                assignable_bytes=self._hands.assignable_bytes,
                host_bytes=self._hands.swapper.reader.host_bytes,
                max_hot=ledger.max_replicas,
            ),
            load=self.load(),
            replicas=replicas,
        )

    def load(self) -> LoadReport:
        load = self._hands.engine.load()
        return LoadReport(load.outstanding, load.capacity, load.wait_s * 1000, load.sequence)

    def _replica(self, one: worker_replica.Replica) -> Replica:
        facts = (
            one.life,
            one.pinned,
            one.outstanding,
            one.requests_total,
            one.swaps_total,
            one.measured,
            one.claim,
            int(self._loop.time() / LOOK_S),
        )
        said = self._said.get(one.key)
        if said is not None and said[0] == facts:
            return said[1]
        replica = self._fresh(one)
        self._said[one.key] = (facts, replica)
        return replica

    def _fresh(self, one: worker_replica.Replica) -> Replica:
        size = one.claim
        if not size.weights_bytes and one.pack is not None:
            size = one.expected()
        measured, now = one.measured, self._loop.time()
        return Replica(
            key=VersionKey(one.order.model, one.order.number),
            state=ReplicaState(one.state.value),
            weights_bytes=size.weights_bytes,
            workspace_bytes=size.workspace_bytes,
            pinned=one.pinned,
            outstanding=one.outstanding,
            last_used_unix_s=one.last_used_unix_s,
            requests_total=one.requests_total,
            loads_total=one.loads_total,
            inference_ms=self._hands.engine.image_s(one.key, one.shape) * 1000,
            load_ms=one.load_s * 1000,
            reason=one.error.reason if one.error is not None else "",
            message=one.error.message if one.error is not None else "",
            variant="simulated/fp32",
            pack=one.order.pack.digest,
            footprint=None if measured is None else _footprint(measured),
            swaps_total=one.swaps_total,
            rates=one.arrivals.now(now),
            queue_ms=one.usage.queue_s(now) * 1000,
            busy=one.usage.busy(now),
            hot_since_unix_s=one.hot_since_unix_s,
        )


def _footprint(measured: types_pb2.Footprint) -> Footprint:
    return Footprint(
        measured.weights_bytes,
        measured.workspace_bytes,
        measured.private_bytes,
        measured.max_batch,
        measured.swap_ms,
        measured.fetch_ms,
    )


class ShellBug(AssertionError):
    """A shell caught an exception that it says should not be."""


@contextmanager
def raising_shell_bugs() -> Iterator[None]:
    """Nothing is logged; what a shell calls a bug is raised as ShellBug at the end."""
    bugs: list[str] = []

    def listen(logger: object, method: str, event: Any) -> Any:
        if "this is a bug" in str(event.get("event")):
            bugs.append(f"{event['event']}: {traceback.format_exc()}")
        raise structlog.DropEvent

    before = structlog.get_config()
    errors = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=errors, processors=[listen])
    try:
        yield
    finally:
        structlog.configure(**before)
    if bugs:
        raise ShellBug(f"{len(bugs)} times; the first: {bugs[0]}")
