"""Builds parts of a worker from its settings, each with the smallest piece of them; for `app`."""

from collections.abc import Callable, Mapping
from functools import partial

from worker.backends.base import Backend
from worker.batching.admission import MAX_OVER
from worker.engine.engine import Engine
from worker.hardware.device_stand import DeviceObserver
from worker.hardware.host import Host
from worker.io_processes.protocol import IoSettings
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.postprocessor import Postprocessor
from worker.preprocess.arena import Arena
from worker.preprocess.decode import ImageLimits
from worker.preprocess.preprocessor import Preprocessor
from worker.replicas.ledger import Ledger
from worker.replicas.pack_reader import TierLimits
from worker.replicas.probing.probes import Upkeep
from worker.replicas.replica import Replica
from worker.settings import Settings
from yolopool.server.clock import Clock
from yolopool.v1.worker_pb2 import PackLocation


def preprocessor(settings: Settings, arena: Arena, clock: Clock) -> Preprocessor:
    return Preprocessor(
        _intake_threads(settings),
        settings.queue_capacity * MAX_OVER,
        ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.max_raw_bytes),
        arena,
        clock.monotonic,
    )


def postprocessor(settings: Settings, clock: Clock) -> Postprocessor:
    return Postprocessor(_intake_threads(settings), settings.queue_capacity, clock.monotonic)


def _intake_threads(settings: Settings) -> int:
    return settings.intake_threads or (4 if settings.device_kind == "cuda" else 2)


def pack_store(settings: Settings, backend: Backend, held: Mapping[str, Replica]) -> PackStore:
    return PackStore(
        settings.data_dir,
        settings.pack_cache_bytes(),
        in_use=lambda: {replica.order.pack.digest for replica in held.values()},
        pin=backend.pin,
    )


def prepare_pack(settings: Settings, packs: PackStore) -> Callable[[PackLocation], Pack]:
    """How a pack is made ready to be read: a simulated device needs no weights."""
    if settings.device_kind == "sim":
        return partial(packs.fetch, weights=False)
    return packs.prepare


def empty_ledger(settings: Settings) -> Ledger:
    """Without a budget, until the device is open."""
    return Ledger(0, graph_pool_bytes=settings.graph_bytes(), max_replicas=settings.max_hot)


def tier_limits(settings: Settings, host: Host) -> TierLimits:
    return TierLimits(
        has_host_tier=settings.device_kind != "cpu",
        host_bytes=settings.host_bytes(host.memory_bytes()),
        fetch_weights=settings.device_kind != "sim",
    )


def upkeep(settings: Settings) -> Upkeep:
    """When replicas on the device are warmed and asked."""
    return Upkeep(settings.rewarm_idle_s, settings.probe_every_s, settings.blind_after)


def io_settings(settings: Settings, port: int, number: int) -> IoSettings:
    """For the I/O process of this number; `port` is the worker's own."""
    return IoSettings(
        host=settings.host,
        port=settings.port and port + 1 + number,
        threads=settings.intake_threads or 2,
        capacity=settings.queue_capacity * MAX_OVER,
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        max_raw_bytes=settings.max_raw_bytes,
        log_level=settings.log_level,
        log_json=settings.log_json,
        tls_ca=str(settings.tls_ca or ""),
        tls_cert=str(settings.tls_cert or ""),
        tls_key=str(settings.tls_key or ""),
    )


def engine(settings: Settings, clock: Clock) -> Engine:
    """Its passes are numbered from the microsecond of its start, so that no two processes of a
    worker number a pass alike.
    """
    return Engine(settings.queue_capacity, clock.monotonic, int(clock.unix() * 1e6))


def device_observer(settings: Settings, engine: Engine, clock: Clock) -> DeviceObserver:
    return DeviceObserver(settings.device, lambda: engine.passed.busy_s, clock.monotonic)
