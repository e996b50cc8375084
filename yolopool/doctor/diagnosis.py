"""All findings on a log, the one that explains most first. Pure."""

from collections.abc import Callable, Iterator, Sequence

from yolopool.doctor.caller_causes import client_retries, decode_bound, oversized, plane_busy
from yolopool.doctor.device_causes import (
    memory_pressure,
    noisy_host,
    slow_device,
    throttled,
    transfer_bound,
)
from yolopool.doctor.finding import SYMPTOMS, Cause, Finding
from yolopool.doctor.load_causes import cold_first, reload_thrash
from yolopool.doctor.looked import Looked
from yolopool.doctor.queue_causes import large_batches, queues
from yolopool.doctor.rows import Rows

CAUSES: Sequence[Callable[[Looked], Iterator[Finding]]] = (
    memory_pressure,
    throttled,
    noisy_host,
    slow_device,
    transfer_bound,
    decode_bound,
    oversized,
    client_retries,
    plane_busy,
    reload_thrash,
    cold_first,
    large_batches,
    queues,
)
# Findings below this share of the time of their requests are not told.
TOLD = 0.1
# A cause with this share explains the queues that it makes.
EXPLAINS = 0.15


def findings(rows: Rows) -> tuple[Finding, ...]:
    """The findings, in the order of what they cost; queues behind what makes them."""
    looked = Looked(rows)
    if not len(looked.ok) and not len(rows):
        return ()
    found = [one for cause in CAUSES for one in cause(looked) if one.share >= TOLD]
    causes = {one.cause for one in found if one.share >= EXPLAINS}
    if Cause.RELOAD_THRASH in causes:
        found = [one for one in found if one.cause is not Cause.COLD_FIRST_REQUESTS]
    explained = bool(causes - SYMPTOMS)
    return tuple(
        sorted(found, key=lambda one: (explained and one.cause in SYMPTOMS, -one.total_ms))
    )
