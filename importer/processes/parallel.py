"""How many imports an importer runs at once: by the cores, and by the memory that each may take."""

import os

from yolopool.server.limits import control_groups


def imports_at_once(cores: int, memory_bytes: int, limit_bytes: int) -> int:
    """One a core, and no more than have room if each takes all it may; one in any case."""
    return max(1, min(cores, memory_bytes // limit_bytes))


def cores() -> int:
    """Cores that this process may keep busy."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *map(int, control_groups.core_quotas())]))


def memory_bytes() -> int:
    """Memory of this host, or what the control groups leave of it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *control_groups.memory_limits()])
