"""Whose each worker is: a worker's certificate speaks for its own workers, and for no others."""

from control_plane.caller import CERTIFICATE, CallContext, principal_of
from control_plane.view.view import View
from yolopool.errors import WorkerNotYours
from yolopool.server.clock import Clock
from yolopool.tls.certificates import peer_of
from yolopool.tls.worker_ids import names_of, owned_by


class WorkerOwners:
    """Who joined as each worker here. All methods raise WorkerNotYours.

    Where callers are asked who they are, a worker that is here stays its caller's until its lease
    ends or it leaves. By a certificate it has an id of the certificate (`worker_ids`), and of no
    process with a longer name that joined with a token. A key of the role worker names nobody, so
    that its holder may take any id that is free.
    """

    def __init__(self, view: View, clock: Clock) -> None:
        self._view = view
        self._clock = clock
        self._callers: dict[str, str] = {}

    def check_joins(self, worker_id: str, incarnation: str, context: CallContext) -> None:
        """Before a worker joins; it is the caller's then, once the view has it."""
        self.check_speaks_for(worker_id, context)
        self.check_process(worker_id, incarnation)
        workers = self._view.workers
        self._callers = {id_: by for id_, by in self._callers.items() if id_ in workers}
        self._callers[worker_id] = principal_of(context).name

    def check_speaks_for(self, worker_id: str, context: CallContext) -> None:
        """Before the word of a caller about a worker counts."""
        self._check_id(worker_id, context)
        worker = self._view.workers.get(worker_id)
        if worker is not None and worker.is_here(self._clock.monotonic()):
            self.check_beats(worker_id, context)

    def check_process(self, worker_id: str, *processes: str) -> None:
        """Whether processes, by their incarnations or ids, are of no other worker. Of one that is
        gone, too: its requests may still be tried elsewhere.
        """
        for other in self._view.workers.values():
            if other.id != worker_id and other.incarnation in processes:
                raise WorkerNotYours(f"that process is one of another worker than {worker_id}")

    def check_beats(self, worker_id: str, context: CallContext) -> None:
        """Whether it is the caller that a worker joined with. Of each heartbeat."""
        by = principal_of(context).name
        if self._callers.get(worker_id, by) != by:
            raise WorkerNotYours(
                f"worker {worker_id} joined with another certificate or key, and is here: give "
                "this one an --id of its own, or wait until that one has left"
            )

    def _check_id(self, worker_id: str, context: CallContext) -> None:
        peer = peer_of(context)
        if peer is None or principal_of(context).name != CERTIFICATE + peer.name:
            return
        names = names_of(peer.name, peer.hosts)
        own = owned_by(worker_id, names)
        if not own:
            raise WorkerNotYours(
                f"the certificate is of {', '.join(names)}, and worker {worker_id} is none of its: "
                f"start the worker with --id {names[0]}, or an id that begins with '{names[0]}-'"
            )
        now = self._clock.unix()
        for key in self._view.desired.api_keys.values():
            other = key.joins.name if key.joins is not None else ""
            if (
                len(other) > len(own)
                and owned_by(worker_id, (other,))
                and key.holds(other, now)
                and key.id != peer.joined
            ):
                raise WorkerNotYours(
                    f"worker {worker_id} is one of {other}'s, which joined with a token: start "
                    "this one with another --id"
                )
