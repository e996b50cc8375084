"""What one worker's stream says, read only where it says something new.

A heartbeat has the whole inventory, and most of it is as it was: what did not change stays the very
object it was, so that whoever looks next sees that by `is`.
"""

from control_plane.convert.workers import ledger_in, replica_in, worker_in
from control_plane.types.version import VersionKey
from control_plane.types.worker import Replica, WorkerInfo
from yolopool.v1 import fleet_pb2, types_pb2


class HeartbeatDecoder:
    """The last message of a worker's stream and what was read of it."""

    def __init__(self) -> None:
        self._said = fleet_pb2.Worker()
        # By model and number: the message, and what was read of it.
        self._read: dict[tuple[str, int], tuple[types_pb2.Replica, Replica]] = {}
        self._worker: WorkerInfo | None = None

    def read(self, said: fleet_pb2.Worker, lease_until_s: float, joined: WorkerInfo) -> WorkerInfo:
        """As `worker_in`."""
        before, last = self._said, self._worker
        if last is None or last.incarnation != said.incarnation:
            self._read = {}
            ledger = ledger_in(said.ledger)
        else:
            ledger = last.ledger if said.ledger == before.ledger else ledger_in(said.ledger)
        worker = worker_in(said, lease_until_s, joined, ledger, self._read_replicas(said))
        self._said, self._worker = said, worker
        return worker

    def _read_replicas(self, said: fleet_pb2.Worker) -> dict[VersionKey, Replica]:
        known, read = self._read, {}
        replicas: dict[VersionKey, Replica] = {}
        for message in said.replicas:
            version = message.version
            name = (version.model, version.version)
            old = known.get(name)
            same = old is not None and old[0] == message
            replica = old[1] if old is not None and same else replica_in(message, old)
            # The new message even where it is equal: an old one keeps its whole heartbeat alive.
            read[name] = (message, replica)
            replicas[replica.key] = replica
        self._read = read
        return replicas
