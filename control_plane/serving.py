"""One control plane process: its store, its logs, and serving until a signal."""

import asyncio

import structlog
import uvloop

from control_plane.app import STEP_S, ControlPlane, stop_limit_s
from control_plane.settings import Settings
from control_plane.store.registry import Registry
from yolopool.server.limits.heap import keep_little
from yolopool.server.logs import set_up_logs, write_out
from yolopool.server.parent_death import die_with_parent
from yolopool.server.process import announce, settle, until_signal
from yolopool.server.time_limits import end_process_after

log = structlog.get_logger()


def build_registry(settings: Settings) -> Registry:
    """Redis if a URL is set; else a store in memory, with a warning."""
    if settings.redis:
        from control_plane.store.redis.redis_registry import registry_of

        return registry_of(settings)
    from control_plane.store.memory_registry import MemoryRegistry

    log.warning(
        "STATE IS KEPT IN MEMORY: it is lost when this process ends; set --redis to keep it"
    )
    return MemoryRegistry()


async def run(settings: Settings) -> None:
    """Serves until a signal."""
    control_plane = ControlPlane(settings, build_registry(settings))
    addresses = await control_plane.start()
    settle()
    line = {"event": "listening", "grpc": addresses.grpc, "http": addresses.http}
    if addresses.pool:
        line["pool"] = addresses.pool
    announce(line)
    log.info("stopping", signal=await until_signal())
    end_process_after(stop_limit_s(settings) + STEP_S, write_out)
    await control_plane.stop()


def main(settings: Settings) -> int:
    """Returns the exit code."""
    set_up_logs("control_plane", settings.log_level, settings.log_json, file=settings.log_file)
    keep_little()
    if settings.die_with_parent:
        die_with_parent()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except (OSError, ValueError) as error:
        # A port in use, a folder that can't be written, an invalid URL.
        log.error("can't start", why=str(error))
        return 1
    return 0
