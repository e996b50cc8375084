"""The state machines of a version and of a worker as tables. Any other step raises an error.

Pure. The state machine of a replica belongs to its worker.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from control_plane.types.version import ModelVersion, Pack, VersionSettings, VersionState
from control_plane.types.worker import WorkerState
from yolopool.server.state_machine import InvalidTransition, Life


class VersionEvent(StrEnum):
    CLAIMED = "CLAIMED"  # by an importer, perhaps after the lease of another ran out
    PROGRESSED = "PROGRESSED"  # its importer, or who fetches its file, reported progress
    IMPORTED = "IMPORTED"  # the pack is in the store
    FAILED = "FAILED"  # with the reason of the importer, or of who fetches its file
    ADOPTED = "ADOPTED"  # a pack of the same artifact and settings existed already


class WorkerEvent(StrEnum):
    SAID_STARTING = "SAID_STARTING"
    SAID_READY = "SAID_READY"
    SAID_DRAINING = "SAID_DRAINING"
    SAID_HUNG = "SAID_HUNG"
    LEASE_RAN_OUT = "LEASE_RAN_OUT"


V, VE = VersionState, VersionEvent
VERSION_TABLE: Mapping[tuple[VersionState, VersionEvent], VersionState] = {
    (V.UPLOADED, VE.CLAIMED): V.IMPORTING,
    (V.UPLOADED, VE.ADOPTED): V.READY,
    (V.UPLOADED, VE.PROGRESSED): V.UPLOADED,  # its file is being fetched
    (V.UPLOADED, VE.FAILED): V.FAILED,  # its file can't be fetched
    (V.IMPORTING, VE.CLAIMED): V.IMPORTING,
    (V.IMPORTING, VE.PROGRESSED): V.IMPORTING,
    (V.IMPORTING, VE.IMPORTED): V.READY,
    (V.IMPORTING, VE.FAILED): V.FAILED,
}


def claimed(version: ModelVersion) -> ModelVersion:
    """An importer begins, or takes over from another."""
    return _advance(version, VE.CLAIMED, 0.0, "")


def progressed(version: ModelVersion, fraction: float, step: str) -> ModelVersion:
    return _advance(version, VE.PROGRESSED, fraction, step)


def imported(version: ModelVersion, pack: Pack, settings: VersionSettings) -> ModelVersion:
    return replace(_advance(version, VE.IMPORTED, 1.0, ""), pack=pack, settings=settings)


def adopted(version: ModelVersion, pack: Pack, settings: VersionSettings) -> ModelVersion:
    return replace(_advance(version, VE.ADOPTED, 1.0, ""), pack=pack, settings=settings)


def failed(version: ModelVersion, reason: str, message: str) -> ModelVersion:
    return replace(_advance(version, VE.FAILED, 0.0, ""), reason=reason, message=message)


def _advance(
    version: ModelVersion, event: VersionEvent, progress: float, step: str
) -> ModelVersion:
    after = VERSION_TABLE.get((version.state, event))
    if after is None:
        raise InvalidTransition(f"{version.key} is {version.state}: {event} can't follow")
    return replace(version, state=after, progress=progress, step=step)


# A process goes from STARTING over READY to DRAINING or HUNG and never back. A lost one may report
# again, since its lease can run out while it lives.
W, WE = WorkerState, WorkerEvent
WORKER_TABLE: Mapping[tuple[WorkerState, WorkerEvent], WorkerState] = {
    (W.STARTING, WE.SAID_STARTING): W.STARTING,
    (W.STARTING, WE.SAID_READY): W.READY,
    (W.STARTING, WE.SAID_DRAINING): W.DRAINING,
    (W.STARTING, WE.LEASE_RAN_OUT): W.LOST,
    (W.READY, WE.SAID_READY): W.READY,
    (W.READY, WE.SAID_DRAINING): W.DRAINING,
    (W.READY, WE.LEASE_RAN_OUT): W.LOST,
    (W.DRAINING, WE.SAID_DRAINING): W.DRAINING,
    (W.DRAINING, WE.LEASE_RAN_OUT): W.LOST,
    (W.STARTING, WE.SAID_HUNG): W.HUNG,
    (W.READY, WE.SAID_HUNG): W.HUNG,
    (W.DRAINING, WE.SAID_HUNG): W.HUNG,
    (W.HUNG, WE.SAID_HUNG): W.HUNG,
    (W.HUNG, WE.LEASE_RAN_OUT): W.LOST,
    (W.LOST, WE.SAID_STARTING): W.STARTING,
    (W.LOST, WE.SAID_READY): W.READY,
    (W.LOST, WE.SAID_DRAINING): W.DRAINING,
    (W.LOST, WE.SAID_HUNG): W.HUNG,
    (W.LOST, WE.LEASE_RAN_OUT): W.LOST,
}

SAID = {
    WorkerState.STARTING: WorkerEvent.SAID_STARTING,
    WorkerState.READY: WorkerEvent.SAID_READY,
    WorkerState.DRAINING: WorkerEvent.SAID_DRAINING,
    WorkerState.HUNG: WorkerEvent.SAID_HUNG,
}


# For annotations: a frozen class with slots can only be made by its own name.
WorkerLife = Life[WorkerState, WorkerEvent]
