"""Decodes the heartbeats of one worker's stream, and only what changed.

A heartbeat has all replicas, and most did not change. An unchanged part keeps the same decoded
object, so that the view sees by `is` that it did not change.
"""

from itertools import chain, repeat

from control_plane.convert.workers import ledger_in, replica_in, worker_in
from control_plane.types.version import VersionKey
from control_plane.types.worker import Replica, WorkerInfo
from yolopool.v1 import fleet_pb2, types_pb2


class HeartbeatDecoder:
    """Keeps the last message of a stream, and what was decoded from it."""

    def __init__(self) -> None:
        self._message = fleet_pb2.Worker()
        # By model and number: the message, and what was decoded from it.
        self._replicas: dict[tuple[str, int], tuple[types_pb2.Replica, Replica]] = {}
        self._worker: WorkerInfo | None = None

    def read(
        self, message: fleet_pb2.Worker, lease_until_s: float, joined: WorkerInfo
    ) -> WorkerInfo:
        """As `worker_in`."""
        before, last = self._message, self._worker
        if last is None or last.incarnation != message.incarnation:
            self._replicas = {}
            ledger = ledger_in(message.ledger)
        else:
            same = message.ledger == before.ledger
            ledger = last.ledger if same else ledger_in(message.ledger)
        worker = worker_in(message, lease_until_s, joined, ledger, self._read_replicas(message))
        self._message, self._worker = message, worker
        return worker

    def _read_replicas(self, worker: fleet_pb2.Worker) -> dict[VersionKey, Replica]:
        known = self._replicas
        read: dict[tuple[str, int], tuple[types_pb2.Replica, Replica]] = {}
        replicas: dict[VersionKey, Replica] = {}
        # A worker keeps the order of its replicas: most stand where they stood in its last message.
        stood = chain(known.values(), repeat(None))
        for message, old in zip(worker.replicas, stood, strict=False):
            if old is not None and old[0] == message:
                replica = old[1]
            else:
                version = message.version
                replica = replica_in(message, known.get((version.model, version.version)))
            # The new message, even if it is equal: an old one keeps its whole heartbeat alive.
            read[replica.key] = (message, replica)
            replicas[replica.key] = replica
        self._replicas = read
        return replicas
