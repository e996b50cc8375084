"""One worker process put together: device, engine, replicas, service, membership.

Owns the clocks and the tasks; decides nothing. Ends on SIGTERM behind its last tickets.
"""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import structlog

from worker import parts
from worker.backends.base import Backend
from worker.backends.factory import backend_of
from worker.concurrency.cancellation import cancel
from worker.concurrency.stall_detector import HangLimits
from worker.hardware.devices import DeviceNotTaken, host_of
from worker.hardware.host import Host, take_turns
from worker.io_processes.pool import IoExit, IoProcessPool
from worker.membership import Membership, report_exit
from worker.preprocess import arena
from worker.preprocess.arena import Arena
from worker.process.confinement import NONE
from worker.process.exit_report import exit_report
from worker.process.exit_status import DEVICE_FAILED
from worker.process.flight_recorder import FlightRecorder
from worker.process.recycler import Recycler
from worker.process.watchdog import Watchdog
from worker.replicas.device_monitor import DeviceMonitor, budget_bytes
from worker.replicas.replica import Replica
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper
from worker.service import convert
from worker.service.callers import asks_clients, guards, warn_if_anyone
from worker.service.identity import Identity
from worker.service.infer_handler import InferHandler
from worker.service.service import WorkerService
from worker.settings import Settings, parse_labels
from yolopool.errors import DeviceFailed, DeviceHung, Draining
from yolopool.server.clock import Clock
from yolopool.server.grpc_server import GrpcServer
from yolopool.server.process import settle
from yolopool.v1 import fleet_pb2, worker_pb2_grpc
from yolopool.v1.types_pb2 import FencingToken
from yolopool.v1.worker_pb2 import AssignRequest
from yolopool.vocabulary import COMPUTE_CLASS, SANDBOX, ReplicaState

log = structlog.get_logger()
SERVICE = "yolopool.v1.WorkerService"
CLOSING_S = 1.0
# For the reply to a Drain that ends this process.
REPLY_S = 0.2


class App:
    """`await start()`, then `await run(until)`."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        host: Host | None = None,
        clock: Clock | None = None,
        sandbox: str = NONE,
    ) -> None:
        self.settings = settings
        self.clock = clock or Clock(time.monotonic, time.time)
        self.backend = backend
        self._host = host or Host()
        self.port = 0
        self.incarnation = uuid.uuid4().hex
        self._box = FlightRecorder(settings.black_box, self.incarnation)
        self._device_name, self._compute_class = "", settings.compute_class
        # Computed once: two of them read files, and an identity goes with every reply.
        self._id, self._release = settings.worker_id, version("yolopool")
        self._labels = {**parse_labels(settings.labels), SANDBOX: sandbox}
        held: dict[str, Replica] = {}
        self.engine = parts.engine(settings, self.clock)
        self.arena = Arena(arena.private(settings.intake_bytes()))
        self.postprocessor = parts.postprocessor(settings, self.clock)
        self.preprocessor = parts.preprocessor(settings, self.arena, self.clock)
        self.certificates = settings.certificates()
        self.server = GrpcServer([SERVICE], guards(self.certificates))
        packs = parts.pack_store(settings, backend, held)
        self.swapper = Swapper(
            self.engine,
            backend,
            packs,
            parts.empty_ledger(settings),
            parts.tier_limits(settings, self._host),
            held,
            self._changed,
            self.clock,
            settings.skip_warmup,
        )
        self.replicas = ReplicaTable(
            held,
            self.swapper,
            self.engine,
            parts.prepare_pack(settings, packs),
            settings.batch_limit(),
            settings.pack_cache_bytes(),
            self._changed,
            self.clock,
        )
        self.recycler = Recycler(
            settings.handover,
            bool(settings.port),
            lambda: self.swapper.ledger.used_bytes - self.swapper.ledger.load_transient_bytes,
            lambda: self.backend.memory().available_bytes,
            lambda: self.rpc.fence.highest,
            self._orders,
        )
        self.device_monitor = DeviceMonitor(
            backend,
            self.swapper,
            self.replicas.held,
            parts.upkeep(settings),
            settings.drift_limit_bytes(),
            self.recycler.recycle,
            parts.device_observer(settings, self.engine, self.clock),
            self.clock.monotonic,
        )
        self.handler = InferHandler(
            self.identity,
            self.replicas,
            self.swapper,
            self.engine,
            self.postprocessor,
            backend,
            self._box,
            self.clock.monotonic,
        )
        self.rpc = WorkerService(
            self.identity,
            self.handler,
            self.replicas,
            self.swapper,
            self.device_monitor,
            self.engine,
            self.preprocessor,
            backend,
            self.clock.monotonic,
        )
        self.io = IoProcessPool(
            settings.io_processes,
            lambda number: parts.io_settings(settings, self.port, number),
            settings.intake_bytes(),
            self.handler.infer,
            changed=self._changed,
            report=self._report_io_exit,
            hang_s=settings.hang_floor_s,
            clock=self.clock.monotonic,
        )
        self.membership = Membership(
            settings.control_planes,
            self.rpc.inventory,
            lambda: self.rpc.fence.highest,
            settings.api_key.get_secret_value(),
            self.certificates,
        )
        self._watchdog: Watchdog | None = None
        self._last_words: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self.rpc, self.server.server)

    def identity(self) -> Identity:
        settings = self.settings
        return Identity(
            id=self._id,
            incarnation=self.incarnation,
            address=settings.advertise or f"{settings.host}:{self.port}",
            device=settings.device,
            device_kind=settings.device_kind,
            device_name=self._device_name,
            # By it a placement can name the class.
            labels={**self._labels, COMPUTE_CLASS: self._compute_class},
            release=self._release,
            replaces_because=self.recycler.replaces_because,
            io_addresses=self._io_addresses(),
            precision=settings.precision,
            compute_class=self._compute_class,
        )

    async def start(self) -> None:
        """Takes the device and listens; SERVING when it returns. Raises OSError if it can't."""
        warn_if_anyone(self.settings.host, self.certificates)
        self.port = await self.server.start(
            self.settings.host,
            self.settings.port,
            self.certificates,
            asks_clients(self.certificates),
        )
        self.engine.start()
        try:
            context_bytes, total_bytes = await self.engine.job(self._open_device)
        except Exception as error:
            await self.server.stop(0)
            await self.engine.stop(CLOSING_S)
            raise DeviceNotTaken(self.settings.device, error) from error
        if self.settings.device_kind == "cpu":
            # Limits of a container, and the shares of other workers.
            total_bytes = min(total_bytes, self._host.memory_bytes())
        budget = self.settings.budget().resolve(total_bytes)
        self.device_monitor.configured_bytes = budget
        self.device_monitor.opened_bytes = context_bytes
        self.swapper.ledger = replace(
            self.swapper.ledger,
            budget_bytes=budget_bytes(budget, budget, self.backend.memory()),
            context_bytes=context_bytes,
        )
        self.preprocessor.start()
        self._tasks = [
            asyncio.create_task(self.swapper.run(), name="swapper"),
            asyncio.create_task(self.device_monitor.run(), name="device monitor"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._died)
        await self.io.start()
        await self.recycler.take_over(self._adopt_token, self._assign)
        self.handler.state = fleet_pb2.WORKER_STATE_READY
        await self.server.set_serving(True)
        log.info(
            "ready",
            worker=self.settings.worker_id,
            address=self.identity().address,
            device=self._device_name,
            budget_bytes=self.swapper.ledger.budget_bytes,
            context_bytes=context_bytes,
        )

    async def run(
        self,
        until: Callable[[], Awaitable[object]],
        hurry: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Serves until `until` returns, then drains and leaves. What is left after the grace
        period, or once `hurry` returns, is refused.
        """
        member = asyncio.create_task(self.membership.run())
        try:
            why = await self.recycler.until_end(asyncio.ensure_future(self._told(until)))
            log.info("draining", why=str(why), open=self.handler.in_flight)
            if self.recycler.is_recycling:
                # A successor joins under the same name: no heartbeat of ours may follow its own.
                await cancel(member)
            await self.server.set_serving(False)
            self.handler.state = fleet_pb2.WORKER_STATE_DRAINING
            self.membership.poke()
            left = await self._drain(hurry)
            log.info("stopping", left=left)
        finally:
            await cancel(member)
            await self.membership.leave()
            await self.stop()

    async def stop(self) -> None:
        """Stops server, threads and device; once, after a start. A pass or a load that does not
        end is left to the end of the process.
        """
        if self._watchdog is not None:
            self._watchdog.stop()
        await self.server.stop(REPLY_S)
        await self.io.stop()
        for task in self._tasks:
            with suppress(Exception):  # `_died` told of it; the rest has to be stopped too
                await cancel(task)
        await self.replicas.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self.engine.job(self.backend.close)
        await self.engine.stop(CLOSING_S)
        self.preprocessor.close()
        self.postprocessor.close()

    async def _drain(self, hurry: Callable[[], Awaitable[object]] | None) -> int:
        """Waits for open requests; returns how many had to be refused."""
        drain = asyncio.create_task(self.handler.drain(self.settings.drain_grace_s))
        hurried = asyncio.ensure_future(hurry()) if hurry is not None else None
        waiting = (drain, hurried) if hurried is not None else (drain,)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            await cancel(task)
        return self.handler.give_up(Draining("this worker ended before its turn came: ask another"))

    def watch(self, die: Callable[[int], object] = os._exit) -> None:
        """Starts the watchdog: it ends the process, with its stacks logged, when the device or this
        event loop hangs.
        """
        settings = self.settings
        bounds = HangLimits(settings.hang_floor_s, settings.hang_load_s)
        self._watchdog = Watchdog(
            (self.engine.running, self.swapper.side_load.activity),
            bounds,
            self._hung,
            die=die,
            clock=self.clock.monotonic,
        )
        self._watchdog.start()
        self.engine.lost = partial(self._watchdog.give_up, DEVICE_FAILED)

    def _hung(self, why: str, status: int) -> None:
        """Answers the requests that wait for the device, before the watchdog ends the process."""
        self._box.seal()
        self.handler.state = fleet_pb2.WORKER_STATE_HUNG
        self.membership.poke()
        error = (DeviceFailed if status == DEVICE_FAILED else DeviceHung)(
            f"worker {self._id} ends, since {why}: ask another"
        )
        log.info("given up", requests=self.handler.give_up(error))
        self._last_words = asyncio.create_task(self.server.set_serving(False))

    async def _told(self, until: Callable[[], Awaitable[object]]) -> object:
        """Returns when the host or a control plane tells this process to end, and which did."""
        host = asyncio.ensure_future(until())
        control_plane = asyncio.create_task(self.rpc.told_to_end.wait())
        try:
            await asyncio.wait((host, control_plane), return_when=asyncio.FIRST_COMPLETED)
            return host.result() if host.done() else "a control plane drained this worker"
        finally:
            await cancel(host)
            await cancel(control_plane)

    def _orders(self) -> list[AssignRequest]:
        """What a successor is to load: the replicas on the device, the most used first."""
        by_use = sorted(self.replicas.held(), key=lambda replica: -replica.requests_total)
        return [
            convert.request_of(replica.order, replica.pinned, replica.measured)
            for replica in by_use
            if replica.state is ReplicaState.HOT
        ]

    def _adopt_token(self, token: FencingToken) -> None:
        self.rpc.fence.highest = token

    async def _assign(self, request: AssignRequest) -> None:
        await self.replicas.assign(convert.assignment_in(request, self.settings.precision))

    def _died(self, task: asyncio.Task[None]) -> None:
        """Ends the process when a task of its died: without it the worker is of no use."""
        if not task.cancelled():
            log.error(
                "a task ended: this is a bug", task=task.get_name(), exc_info=task.exception()
            )
            self.rpc.told_to_end.set()

    async def _report_io_exit(self, exit: IoExit) -> None:
        identity = self.identity()
        report = exit_report(
            worker=identity.id,
            device=identity.device,
            device_kind=identity.device_kind,
            incarnation=identity.incarnation,
            ended=exit.ended,
            ran_s=exit.ran_s,
            restart=exit.restart,
            requests=exit.requests,
            io_process=exit.id,
        )
        settings = self.settings
        key = settings.api_key.get_secret_value()
        await report_exit(settings.control_planes, report, key, self.certificates)

    def _io_addresses(self) -> tuple[str, ...]:
        host = self.settings.advertise.rpartition(":")[0] or self.settings.host
        return tuple(f"{host}:{port}" for _, port in sorted(self.io.ports.items()))

    def _open_device(self) -> tuple[int, int]:
        """Bytes of the context and of the device."""
        context_bytes = self.backend.open()
        self._device_name = self.backend.device_name
        self._compute_class = self._compute_class or self.backend.compute_class
        return context_bytes, self.backend.memory().total_bytes

    def _changed(self) -> None:
        self.membership.poke()


async def serve(settings: Settings, until: Callable[[], Awaitable[object]], sandbox: str) -> None:
    """Runs one worker for one device, from start to end. `sandbox`: how far it is confined."""
    host = host_of(settings.device)
    if settings.device_kind == "cpu":
        take_turns()
    app = App(settings, backend_of(settings, host), host, sandbox=sandbox)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, app.recycler.recycle, "SIGUSR1 asked for a successor")
    app.watch()
    await app.start()
    settle()
    # A supervisor's child may get one signal twice, from the terminal and from its parent. The
    # parent ends it when the grace period is over.
    await app.run(until, hurry=None if settings.die_with_parent else until)
