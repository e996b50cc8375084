"""Runs a sampled share of an alias's requests on the other version of its rollout too, and notes
what both answered.

Off the path of the request: it begins after the caller's answer is there, at the lowest priority,
few at a time. Where the worker is not idle, only for a part of the time, and not at all where more
than one pass waits.
"""

import asyncio
from contextlib import suppress
from random import Random

import structlog

from control_plane.convert.versions import key_out
from control_plane.rollout.gathered import OF_VERSION, Answer, Gathered, Gathering
from control_plane.rollout.rollout_controller import class_names_of
from control_plane.routing.attempts import Attempt, AttemptRunner
from control_plane.routing.balancer import Send, choose
from control_plane.routing.detect_call import ENDED
from control_plane.routing.quarantine import Quarantine
from control_plane.routing.request_log import RequestRecord
from control_plane.types.rollout.alias import WHOLE, AliasKey
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from control_plane.view.view import View
from yolopool.errors import ImageQuarantined, VersionQuarantined, YolopoolError
from yolopool.server.clock import Clock
from yolopool.v1 import detection_pb2, types_pb2, worker_pb2

log = structlog.get_logger()

# At once, and of images that these hold.
MAX_RUNS, MAX_BYTES = 2, 32 * 2**20
# Of the time, at workers that are not idle; and how much of it may be saved up, seconds.
BUSY_SHARE, MOST_SPARE_S = 0.1, 0.2
# Time for one: beyond it is as good as lost.
RUN_S = 10.0


class BesideRuns:
    def __init__(
        self,
        view: View,
        attempts: AttemptRunner,
        quarantine: Quarantine,
        gathered: Gathered,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._view = view
        self._attempts = attempts
        self._quarantine = quarantine
        self._gathered = gathered
        self._clock = clock
        self._rng = rng
        self._runs: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._spare_s, self._seen_s = MOST_SPARE_S, clock.monotonic()

    def answered(
        self,
        record: RequestRecord,
        body: worker_pb2.InferRequest,
        answer: detection_pb2.DetectResponse,
        *,
        is_sticky: bool,
    ) -> None:
        """A request by an alias was answered; `body` is not used by others any more. `is_sticky`:
        its caller's key decides of its version.
        """
        self._ended(record, body, Answer(False, answer), is_sticky)

    def failed(
        self,
        record: RequestRecord,
        body: worker_pb2.InferRequest,
        reason: str,
        had_s: float,
        *,
        is_sticky: bool,
    ) -> None:
        """It failed; see `OF_VERSION`. `had_s`: its time. That a shorter one than runs beside have
        did not suffice is the caller's affair.
        """
        if reason in OF_VERSION and (reason != "DEADLINE_EXCEEDED" or had_s >= RUN_S):
            self._ended(record, body, Answer(True), is_sticky)

    async def close(self) -> None:
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

    def _ended(
        self,
        record: RequestRecord,
        body: worker_pb2.InferRequest,
        answer: Answer,
        is_sticky: bool,
    ) -> None:
        ref, key = record.ref, record.key
        if ref is None or key is None:
            return
        alias = self._view.desired.aliases.get(AliasKey(ref.name, ref.alias or ""))
        rollout = alias.rollout if alias is not None else None
        if alias is None or rollout is None or not rollout.running:
            return
        if key.number not in (rollout.stable, rollout.candidate):
            return
        names = class_names_of(self._view, alias, rollout)
        gathering = self._gathered.of(rollout, names)
        share = alias.shadow.share if alias.shadow is not None else 0
        if self._rng.random() * WHOLE >= share:
            # Callers with a key have one version all the time, and images and deadlines of their
            # own: what differs between them is not the versions.
            if not is_sticky:
                gathering.live(key.number, answer)
            return
        other = rollout.candidate if key.number == rollout.stable else rollout.stable
        worker = self._free_worker(VersionKey(key.model, other))
        size = len(body.encoded) or len(body.raw.data)
        if worker is None or len(self._runs) >= MAX_RUNS or self._bytes + size > MAX_BYTES:
            gathering.dropped += 1
            return
        self._bytes += size
        run = asyncio.create_task(
            self._run(gathering, worker, key, other, body, answer, size), name="beside"
        )
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)

    def _free_worker(self, key: VersionKey) -> WorkerInfo | None:
        """A worker with the version and nothing to do; or with one pass at most, while such runs
        have not had their part of the time.
        """
        now = self._clock.monotonic()
        self._spare_s += BUSY_SHARE * (now - self._seen_s)
        self._spare_s, self._seen_s = min(self._spare_s, MOST_SPARE_S), now
        route = choose(self._view, key, now, self._rng)
        if not isinstance(route, Send):
            return None
        worker = route.worker
        if self._is_idle(worker):
            return worker
        report = self._view.loads.get(worker.id, worker.load)
        pass_ms = max(one.inference_ms for one in worker.replicas.values())
        return worker if report.estimated_wait_ms <= pass_ms and self._spare_s > 0 else None

    def _is_idle(self, worker: WorkerInfo) -> bool:
        report = self._view.loads.get(worker.id, worker.load)
        return not (report.outstanding or self._view.outstanding.get(worker.id, 0))

    async def _run(
        self,
        gathering: Gathering,
        worker: WorkerInfo,
        key: VersionKey,
        other: int,
        body: worker_pb2.InferRequest,
        answer: Answer,
        size: int,
    ) -> None:
        began_s, idle = self._clock.monotonic(), self._is_idle(worker)
        encoded = body.encoded if gathering.rollout.plan.keep_images else b""
        try:
            found = await self._answer_of(worker, VersionKey(key.model, other), body)
        except Exception:
            log.exception("a run beside failed: this is a bug")
            return
        finally:
            self._bytes -= size
            if not idle:
                self._spare_s -= self._clock.monotonic() - began_s
        if found is None:
            gathering.dropped += 1
        elif other == gathering.rollout.candidate:
            gathering.beside(answer, found, encoded)
        else:
            gathering.beside(found, answer, encoded)

    async def _answer_of(
        self, worker: WorkerInfo, key: VersionKey, body: worker_pb2.InferRequest
    ) -> Answer | None:
        """None: it says nothing of the version."""
        suspect = body.suspect
        body.version.CopyFrom(key_out(key))
        body.priority = types_pb2.PRIORITY_BULK
        body.request_id = f"{body.request_id[:120]}/beside"
        body.tenant, body.weight, body.suspect = "", 0.0, False
        deadline_s = self._clock.monotonic() + RUN_S
        try:
            await self._quarantine.check(body)
            body.suspect = body.suspect or suspect
            reply = await self._attempts.infer(
                Attempt(worker, key, deadline_s, None, lambda: False), body
            )
        except YolopoolError as error:
            if error.reason in ENDED:
                await self._note_loss(worker, body, deadline_s)
            return Answer(True) if error.reason in OF_VERSION else None
        await self._quarantine.answered(body)
        return Answer(False, reply.result)

    async def _note_loss(
        self, worker: WorkerInfo, body: worker_pb2.InferRequest, deadline_s: float
    ) -> None:
        """The image may have crashed the worker: it must not crash another one."""
        with suppress(ImageQuarantined, VersionQuarantined):
            await self._quarantine.may_go_on(body, worker.incarnation, 1, deadline_s)
