"""One worker process put together: device, ledger, replicas, intake, rpc, membership.

Owns the clocks and the tasks; decides nothing. Ends on SIGTERM behind its last tickets.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version

import structlog

from worker.backends.base import Backend
from worker.engine import Engine
from worker.host import Host
from worker.imaging import ImageLimits
from worker.intake import Intake
from worker.ledger import Ledger
from worker.membership import Membership
from worker.packs import PackDoor
from worker.replicas import Limits, Replicas
from worker.rpc import Identity, WorkerRpc
from worker.settings import Settings, parse_labels
from yolopool.serving import GrpcServer
from yolopool.v1 import fleet_pb2, worker_pb2_grpc

log = structlog.get_logger()
SERVICE = "yolopool.v1.WorkerService"
CLOSING_S = 1.0


def backend_of(settings: Settings) -> Backend:
    """The backend of a device; torch is imported for real devices only."""
    kind, _, name = settings.device.partition(":")
    if kind == "sim":
        from worker.backends.simulated import SimulatedBackend

        return SimulatedBackend(int(name or 0), settings.budget().resolve(0))
    from worker.backends.torch_backend import TorchBackend

    threads = settings.compute_threads or Host().compute_threads()
    # The supervisor let this process see its own device alone, so that is number 0.
    return TorchBackend("cuda:0" if kind == "cuda" else "cpu", threads if kind == "cpu" else 0)


class App:
    """`await start()`, then `await run(until)`."""

    def __init__(self, settings: Settings, backend: Backend) -> None:
        self.settings = settings
        self.backend = backend
        self.port = 0
        self.incarnation = uuid.uuid4().hex
        self._device_name = ""
        kind = settings.device_kind
        self.engine = Engine(settings.queue_capacity)
        self.intake = Intake(
            settings.intake_threads or (4 if kind == "cuda" else 2),
            settings.queue_capacity,
            ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
        )
        self.server = GrpcServer([SERVICE])
        self.replicas = Replicas(
            self.engine,
            backend,
            PackDoor(settings.data_dir),
            Ledger(0),
            Limits(
                max_batch=settings.batch_limit(),
                promoting=settings.queue_capacity,
                skip_warmup=settings.skip_warmup,
                two_tiers=kind == "cuda",
                fetch_weights=kind != "sim",
            ),
            changed=self._changed,
        )
        self.rpc = WorkerRpc(self.identity, self.replicas, self.engine, self.intake, backend)
        self.membership = Membership(
            settings.control_planes, self.rpc.inventory, lambda: self.rpc.fence.highest
        )
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self.rpc, self.server.server)

    def identity(self) -> Identity:
        settings = self.settings
        return Identity(
            id=settings.worker_id,
            incarnation=self.incarnation,
            address=settings.advertise or f"{settings.host}:{self.port}",
            device=settings.device,
            device_kind=settings.device_kind,
            device_name=self._device_name,
            labels=parse_labels(settings.labels),
            release=version("yolopool"),
        )

    async def start(self) -> None:
        """Takes the device and listens; SERVING when it returns. OSError if it can't do either."""
        self.port = await self.server.start(self.settings.host, self.settings.port)
        self.engine.start()
        try:
            context_bytes, total_bytes, self._device_name = await self.engine.job(self._open_device)
        except Exception as error:
            await self.server.stop(0)
            await self.engine.stop(CLOSING_S)
            raise OSError(f"device {self.settings.device} can't be taken: {error}") from error
        if self.settings.device_kind == "cpu":
            total_bytes = min(total_bytes, Host().memory_bytes())  # a container's limit
        budget = self.settings.budget().resolve(total_bytes)
        self.replicas.ledger = replace(
            self.replicas.ledger, budget_bytes=budget, context_bytes=context_bytes
        )
        self.rpc.state = fleet_pb2.WORKER_STATE_READY
        await self.server.set_serving(True)
        log.info(
            "ready",
            worker=self.settings.worker_id,
            address=self.identity().address,
            device=self._device_name,
            budget_bytes=budget,
            context_bytes=context_bytes,
        )

    async def run(self, until: Callable[[], Awaitable[object]]) -> None:
        """Serves until what `until` returns is done, then finishes what is queued and leaves."""
        member = asyncio.create_task(self.membership.run())
        try:
            why = await until()
            log.info("draining", why=str(why), open=self.rpc.infers)
            await self.server.set_serving(False)
            self.rpc.state = fleet_pb2.WORKER_STATE_DRAINING
            self.membership.poke()
            left = await self.rpc.drain(self.settings.drain_grace_s)
            log.info("stopping", left=left)
        finally:
            member.cancel()
            with suppress(asyncio.CancelledError):
                await member
            await self.membership.leave()
            await self.stop()

    async def stop(self) -> None:
        """Ends server, threads and device; once, after a start. A pass or a load that does not
        come to its end is left to the end of the process.
        """
        await self.server.stop(0)
        await self.replicas.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self.engine.job(self.backend.close)
        await self.engine.stop(CLOSING_S)
        self.intake.close()

    def _open_device(self) -> tuple[int, int, str]:
        context_bytes = self.backend.open()
        return context_bytes, self.backend.memory().total_bytes, self.backend.device_name

    def _changed(self) -> None:
        self.membership.poke()


async def serve(settings: Settings, until: Callable[[], Awaitable[object]]) -> None:
    """One worker for one device, from start to end."""
    app = App(settings, backend_of(settings))
    await app.start()
    await app.run(until)
