"""One worker process put together: device, ledger, replicas, intake, rpc, membership.

Owns the clocks and the tasks; decides nothing. Ends on SIGTERM behind its last tickets.
"""

import asyncio
import os
import signal
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import structlog

from worker.backends.base import Backend
from worker.backends.factory import backend_of
from worker.concurrency.stall_detector import HangLimits
from worker.engine.engine import Engine
from worker.hardware.devices import host_of
from worker.hardware.host import Host, take_turns
from worker.io_processes.pool import IoExit, IoProcessPool
from worker.io_processes.protocol import IoSettings
from worker.membership import Membership, report_exit
from worker.packs.pack_store import PackStore
from worker.postprocess.postprocessor import Postprocessor
from worker.preprocess import arena
from worker.preprocess.arena import Arena
from worker.preprocess.decode import ImageLimits
from worker.preprocess.preprocessor import Preprocessor
from worker.process import hot_restart
from worker.process.flight_recorder import FlightRecorder
from worker.process.watchdog import Watchdog
from worker.replicas.device_monitor import DeviceMonitor, budget_bytes
from worker.replicas.ledger import Ledger
from worker.replicas.lifecycle import ReplicaState
from worker.replicas.replica import Replica
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper, TierLimits
from worker.service import convert
from worker.service.identity import Identity
from worker.service.service import WorkerService
from worker.settings import Settings, parse_labels
from yolopool.errors import DeviceHung, Draining, YolopoolError
from yolopool.server.grpc_server import GrpcServer
from yolopool.server.process import settle
from yolopool.v1 import fleet_pb2, membership_pb2, worker_pb2_grpc
from yolopool.vocabulary import COMPUTE_CLASS

log = structlog.get_logger()
SERVICE = "yolopool.v1.WorkerService"
CLOSING_S = 1.0
# For the answer to whoever asked for the drain that ends this process.
REPLY_S = 0.2
# For one model of the process before this one.
TAKE_OVER_S = 60.0


class App:
    """`await start()`, then `await run(until)`."""

    def __init__(self, settings: Settings, backend: Backend, host: Host | None = None) -> None:
        self.settings = settings
        self.backend = backend
        self._host = host or Host()
        self.port = 0
        self.incarnation = uuid.uuid4().hex
        self._box = FlightRecorder(settings.black_box, self.incarnation)
        self._device_name, self._compute_class = "", settings.compute_class
        # Once: two of them read files, and an identity rides on every answer.
        self._id, self._release = settings.worker_id, version("yolopool")
        self._labels = parse_labels(settings.labels)
        self._replaces_because = ""
        self._recycle_because = asyncio.Event()
        kind = settings.device_kind
        held: dict[str, Replica] = {}
        self.engine = Engine(settings.queue_capacity)
        self.arena = Arena(arena.private(settings.intake_bytes()))
        intake_threads = settings.intake_threads or (4 if kind == "cuda" else 2)
        self.postprocessor = Postprocessor(intake_threads, settings.queue_capacity)
        self.preprocessor = Preprocessor(
            intake_threads,
            settings.queue_capacity,
            ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
            self.arena,
        )
        self.server = GrpcServer([SERVICE])
        packs = PackStore(
            settings.data_dir,
            settings.pack_cache_bytes(),
            in_use=lambda: {one.order.pack.digest for one in held.values()},
            pin=backend.pin,
        )
        tiers = TierLimits(
            two=kind != "cpu",
            host_bytes=settings.host_bytes(self._host.memory_bytes()),
            fetch_weights=kind != "sim",
            skip_warmup=settings.skip_warmup,
        )
        ledger = Ledger(0, graph_pool_bytes=settings.graph_bytes(), max_replicas=settings.max_hot)
        self.swapper = Swapper(
            self.engine, backend, packs, ledger, tiers, held, changed=self._changed
        )
        self.replicas = ReplicaTable(
            held,
            self.swapper,
            self.engine,
            partial(packs.fetch, weights=False) if kind == "sim" else packs.prepare,
            settings.batch_limit(),
            settings.pack_cache_bytes(),
            changed=self._changed,
        )
        self.device_monitor = DeviceMonitor(
            backend,
            self.swapper,
            self.replicas.held,
            settings.rewarm_idle_s,
            settings.drift_limit_bytes(),
            self.recycle,
        )
        self.rpc = WorkerService(
            self.identity,
            self.replicas,
            self.swapper,
            self.device_monitor,
            self.engine,
            self.preprocessor,
            self.postprocessor,
            backend,
            self._box,
        )
        self.io = IoProcessPool(
            settings.io_processes,
            self._io_settings,
            settings.intake_bytes(),
            self.rpc.infer,
            changed=self._changed,
            tell=self._tell_io_exit,
            hang_s=settings.hang_floor_s,
        )
        self.membership = Membership(
            settings.control_planes, self.rpc.inventory, lambda: self.rpc.fence.highest
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
            labels={COMPUTE_CLASS: self._compute_class, **self._labels},
            release=self._release,
            replaces_because=self._replaces_because,
            io_addresses=self._io_addresses(),
            precision=settings.precision,
            compute_class=self._compute_class,
        )

    async def start(self) -> None:
        """Takes the device and listens; SERVING when it returns. OSError if it can't do either."""
        self.port = await self.server.start(self.settings.host, self.settings.port)
        self.engine.start()
        try:
            context_bytes, total_bytes = await self.engine.job(self._open_device)
        except Exception as error:
            await self.server.stop(0)
            await self.engine.stop(CLOSING_S)
            raise OSError(f"device {self.settings.device} can't be taken: {error}") from error
        if self.settings.device_kind == "cpu":
            # A container's limit, and other workers' shares.
            total_bytes = min(total_bytes, self._host.memory_bytes())
        budget = self.settings.budget().resolve(total_bytes)
        self.device_monitor.configured_bytes = budget
        self.swapper.ledger = replace(
            self.swapper.ledger,
            budget_bytes=budget_bytes(budget, budget, self.backend.memory()),
            context_bytes=context_bytes,
        )
        self.preprocessor.start()
        self._tasks = [
            asyncio.create_task(self.swapper.run(), name="swaps"),
            asyncio.create_task(self.device_monitor.run(), name="upkeep"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._died)
        await self.io.start()
        await self._take_over()
        self.rpc.state = fleet_pb2.WORKER_STATE_READY
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
        """Serves until what `until` returns is done, then finishes what is queued and leaves; what
        is left after the grace, or once `hurry` is done, is refused.
        """
        member = asyncio.create_task(self.membership.run())
        try:
            why = await self._until(until)
            log.info("draining", why=str(why), open=self.rpc.infers)
            if self._recycle_because.is_set():
                # A successor joins under the same name: no word of this process after its own.
                await _ended(member)
            await self.server.set_serving(False)
            self.rpc.state = fleet_pb2.WORKER_STATE_DRAINING
            self.membership.poke()
            left = await self._drain(hurry)
            log.info("stopping", left=left)
        finally:
            await _ended(member)
            await self.membership.leave()
            await self.stop()

    async def stop(self) -> None:
        """Ends server, threads and device; once, after a start. A pass or a load that does not
        come to its end is left to the end of the process.
        """
        if self._watchdog is not None:
            self._watchdog.stop()
        await self.server.stop(REPLY_S)
        await self.io.stop()
        for task in self._tasks:
            await _ended(task)
        await self.replicas.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self.engine.job(self.backend.close)
        await self.engine.stop(CLOSING_S)
        self.preprocessor.close()
        self.postprocessor.close()

    async def _drain(self, hurry: Callable[[], Awaitable[object]] | None) -> int:
        """Finishes what is queued; answers how many had to be refused."""
        drain = asyncio.create_task(self.rpc.drain(self.settings.drain_grace_s))
        told_again = asyncio.ensure_future(hurry()) if hurry is not None else None
        waiting = (drain, told_again) if told_again is not None else (drain,)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            await _ended(task)
        return self.rpc.give_up(Draining("this worker ended before its turn came: ask another"))

    def watch(self, die: Callable[[int], object] = os._exit) -> None:
        """Ends the process, with its stacks logged, when the device or this event loop hangs."""
        settings = self.settings
        bounds = HangLimits(settings.hang_floor_s, settings.hang_load_s)
        self._watchdog = Watchdog(self.engine.running, bounds, self._hung, die)
        self._watchdog.start()

    def _hung(self, why: str) -> None:
        """Tells whoever waits for the device, while there is time."""
        self._box.seal()
        self.rpc.state = fleet_pb2.WORKER_STATE_HUNG
        self.membership.poke()
        error = DeviceHung(f"worker {self._id} ends, since {why}: ask another")
        log.info("given up", requests=self.rpc.give_up(error))
        self._last_words = asyncio.create_task(self.server.set_serving(False))

    async def _until(self, until: Callable[[], Awaitable[object]]) -> object:
        """Returns when the process is to end: it was told to, or makes room for its successor."""
        told = asyncio.ensure_future(self._told(until))
        note = hot_restart.read(self.settings.handover)
        if note is None and not self._recycle_because.is_set():
            recycle = asyncio.create_task(self._recycle_because.wait())
            await asyncio.wait((told, recycle), return_when=asyncio.FIRST_COMPLETED)
            await _ended(recycle)
            note = hot_restart.read(self.settings.handover)
        if told.done():
            return told.result()
        if note is not None and note.beside:
            return await told  # the supervisor says when the successor is there
        await _ended(told)
        return "recycled"

    async def _told(self, until: Callable[[], Awaitable[object]]) -> object:
        """Whoever says first that this process is to end: its host, or a control plane."""
        host = asyncio.ensure_future(until())
        control_plane = asyncio.create_task(self.rpc.told_to_end.wait())
        try:
            await asyncio.wait((host, control_plane), return_when=asyncio.FIRST_COMPLETED)
            return host.result() if host.done() else "a control plane drained this worker"
        finally:
            await _ended(host)
            await _ended(control_plane)

    def recycle(self, why: str) -> None:
        """Asks for a successor: beside this process where memory allows, else after it. Once."""
        if self._recycle_because.is_set():
            return
        ledger, memory = self.swapper.ledger, self.backend.memory()
        again = ledger.used_bytes - ledger.load_transient_bytes
        # Two processes can't listen on one port that was given.
        beside = memory.available_bytes >= again and not self.settings.port
        log.error("recycling", why=why, beside=beside, needs_bytes=again)
        if self.settings.handover is not None:
            orders = [
                convert.request_of(one.order, one.pinned, one.measured)
                for one in sorted(self.replicas.held(), key=lambda one: -one.requests_total)
                if one.state is ReplicaState.HOT
            ]
            note = hot_restart.RestartNote(why, beside, self.rpc.fence.highest, tuple(orders))
            hot_restart.write(self.settings.handover, note)
        self._recycle_because.set()

    async def _take_over(self) -> None:
        """Loads what the process before this one held, if it left word."""
        note = hot_restart.read(self.settings.handover)
        if note is None:
            return
        self._replaces_because = note.why
        self.rpc.fence.highest = note.token
        log.info("taking over", why=note.why, models=len(note.orders))
        for order in note.orders:
            try:
                async with asyncio.timeout(TAKE_OVER_S):
                    await self.replicas.assign(
                        convert.assignment_in(order, self.settings.precision)
                    )
            except (YolopoolError, TimeoutError) as error:
                log.warning("not taken over", model=convert.key_of(order.version), why=str(error))
        hot_restart.done(self.settings.handover)

    def _died(self, task: asyncio.Task[None]) -> None:
        """A worker whose device nobody looks after any more is of no use: another takes over."""
        if not task.cancelled():
            log.error(
                "a task ended: this is a bug", task=task.get_name(), exc_info=task.exception()
            )
            self.rpc.told_to_end.set()

    def _io_settings(self, number: int) -> IoSettings:
        settings = self.settings
        return IoSettings(
            host=settings.host,
            port=settings.port and self.port + 1 + number,
            threads=settings.intake_threads or 2,
            capacity=settings.queue_capacity,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
            log_level=settings.log_level,
            log_json=settings.log_json,
        )

    async def _tell_io_exit(self, exit: IoExit) -> None:
        one = self.identity()
        report = membership_pb2.ReportExitRequest(
            worker=one.id,
            device=one.device,
            device_kind=one.device_kind,
            incarnation=one.incarnation,
            io_process=exit.id,
            exit=fleet_pb2.WorkerExit(
                ended=exit.ended,
                in_a_row=exit.restart.attempt,
                ran_s=exit.ran_s,
                restart_in_s=exit.restart.delay_s,
            ),
            requests=exit.requests,
        )
        await report_exit(self.settings.control_planes, report)

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


async def _ended(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def serve(settings: Settings, until: Callable[[], Awaitable[object]]) -> None:
    """One worker for one device, from start to end."""
    host = host_of(settings.device)
    if settings.device_kind == "cpu":
        take_turns()
    app = App(settings, backend_of(settings, host), host)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, app.recycle, "SIGUSR1 asked for a successor")
    app.watch()
    await app.start()
    settle()
    # A supervisor's child may hear of one signal twice, from the terminal and from its parent,
    # which ends it when the grace is over.
    await app.run(until, hurry=None if settings.die_with_parent else until)
