"""How much the registry holds at most: every control plane has all of it in memory. Pure."""

from collections.abc import Sized

from yolopool.errors import RegistryFull

# A build of a model counts as a model.
MAX_MODELS, MAX_VERSIONS_A_MODEL, MAX_VERSIONS = 10_000, 1_000, 20_000
MAX_SCHEDULES, MAX_WORKERS = 1_000, 4_096
MAX_ALIASES = 5_000


def check_room(held: Sized, most: int, what: str) -> None:
    """Raises RegistryFull if one more would be too many. what: the plural, such as models."""
    if len(held) >= most:
        raise RegistryFull(f"there are {len(held)} {what}, and at most {most} fit: delete some")
