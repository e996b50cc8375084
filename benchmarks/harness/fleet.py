"""Questions to a pool that several scenarios ask, by the public client."""

from collections.abc import Sequence
from pathlib import Path

from yolopool.client.async_client import AsyncClient
from yolopool.client.fleet_records import Worker
from yolopool.client.model_records import Model


def is_serving(
    workers: Sequence[Worker], models: Sequence[Model], devices: int, demo: bool
) -> bool:
    """Whether so many workers are READY, all of them, and the demo model too if there is one."""
    ready = [one.state == "READY" for one in workers]
    return len(ready) >= devices and all(ready) and (not demo or ready_names(models) != [])


def ready_names(models: Sequence[Model]) -> list[str]:
    """Names that a Detect may ask for now: those with a READY version."""
    return [model.name for model in models if model.default_version]


async def register(
    client: AsyncClient, name: str, path: Path, image_size: int | None = None
) -> None:
    """Registers a weights file and waits for its import; RuntimeError if that did not succeed."""
    version = await client.register(name, path, image_size=image_size)
    if version.state != "READY":
        why = f"{version.reason}: {version.message}" if version.reason else version.step
        raise RuntimeError(f"{version.name} is {version.state}, not READY ({why})")
