"""How much of the devices' memory the models of each tenant hold. Pure."""

from collections.abc import Iterable

from control_plane.types.access.tenant import Owners
from control_plane.types.worker import WorkerInfo, WorkerState
from yolopool.vocabulary import ReplicaState


def resident_bytes(workers: Iterable[WorkerInfo], owners: Owners) -> dict[str, int]:
    """Weights on devices by the tenant that owns their models; empty: nobody's."""
    held: dict[str, int] = {}
    for worker in workers:
        if worker.state is WorkerState.LOST:
            continue
        for replica in worker.replicas.values():
            if replica.state is not ReplicaState.HOT:
                continue
            owner = owners.of(replica.key.model)
            name = owner.name if owner is not None else ""
            held[name] = held.get(name, 0) + replica.weights_bytes
    return held
