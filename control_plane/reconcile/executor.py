"""Executes a plan's commands on workers: one task each, so that a slow load blocks no other worker.

A command is in flight until the heartbeats of its worker show the result. Until then it is applied
to every snapshot, so that no plan decides the same thing twice.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.metrics.exposition import Metrics
from control_plane.scheduling.reasons import TRANSIENT
from control_plane.types.command import Assign, Release
from control_plane.types.event import EventKind
from control_plane.types.footprint import Footprint, FootprintKey, footprint
from control_plane.types.lease import FencingToken
from control_plane.types.policy import BatchingConfig
from control_plane.types.version import VersionKey
from control_plane.types.worker import LOADED, Replica, ReplicaKey, WorkerInfo
from control_plane.view.view import View
from control_plane.view.waiters import ANY
from control_plane.worker_client import WorkerClient
from yolopool.errors import YolopoolError
from yolopool.server.clock import Clock
from yolopool.vocabulary import ReplicaState

log = structlog.get_logger()

# How long heartbeats may lag behind a worker's reply before the reply alone is believed.
SETTLE_S = 3.0
# Before a command that a worker refused for a transient reason is sent again.
RETRY_S = 0.5


@dataclass(slots=True)
class _InFlight:
    command: Assign | Release
    replied: asyncio.Event = field(default_factory=asyncio.Event)
    refused: bool = False
    task: asyncio.Task[None] | None = None


class Executor:
    """`load_timeout_s` and `release_timeout_s` bound one command."""

    def __init__(
        self,
        view: View,
        link: WorkerClient,
        pack_uri: Callable[[str], str],
        metrics: Metrics,
        recorder: EventRecorder,
        clock: Clock,
        load_timeout_s: float,
        release_timeout_s: float,
    ) -> None:
        self._view = view
        self._link = link
        self._pack_uri = pack_uri
        self._metrics = metrics
        self._recorder = recorder
        self._clock = clock
        self._load_timeout_s = load_timeout_s
        self._release_timeout_s = release_timeout_s
        self._in_flight: dict[ReplicaKey, _InFlight] = {}
        self._by_worker: dict[str, set[VersionKey]] = {}
        self._ended_since: set[ReplicaKey] = set()

    def start(self, command: Assign | Release, token: FencingToken) -> None:
        """Sends a command, unless one for the same version is on its way to that worker."""
        target = (command.worker, command.key)
        worker = self._view.workers.get(command.worker)
        if target in self._in_flight or worker is None:
            self._ended_since.add(target)  # the plan was outdated: look at the version again
            return
        in_flight = _InFlight(command)
        self._in_flight[target] = in_flight
        self._by_worker.setdefault(command.worker, set()).add(command.key)
        in_flight.task = asyncio.create_task(self._run(in_flight, worker, token), name=str(command))
        in_flight.task.add_done_callback(lambda _: self._end(target))

    def with_in_flight(self, worker: WorkerInfo) -> WorkerInfo:
        """The worker as it will be once its commands in flight are done."""
        keys = self._by_worker.get(worker.id)
        if not keys:
            return worker
        replicas = dict(worker.replicas)
        for key in keys:
            command = self._in_flight[worker.id, key].command
            if isinstance(command, Assign):
                replicas[key] = self._assigned(worker, command)
            elif key in replicas:
                replicas[key] = replace(replicas[key], state=ReplicaState.RELEASING)
        return replace(worker, replicas=replicas)

    @property
    def in_flight(self) -> int:
        """How many commands are."""
        return len(self._in_flight)

    @property
    def releasing(self) -> Collection[VersionKey]:
        """Versions whose want ends with a release in flight: a new want waits until it is done."""
        return [
            key
            for (_, key), in_flight in self._in_flight.items()
            if isinstance(in_flight.command, Release)
            and in_flight.command.drop_want
            and not in_flight.command.replicas_left
        ]

    def ended(self) -> set[ReplicaKey]:
        """Commands that ended since the last call."""
        done, self._ended_since = self._ended_since, set()
        return done

    async def close(self) -> None:
        """Cancels the commands in flight."""
        tasks = [
            in_flight.task for in_flight in self._in_flight.values() if in_flight.task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _assigned(self, worker: WorkerInfo, command: Assign) -> Replica:
        here = worker.replicas.get(command.key)
        if here is not None and here.state is not ReplicaState.FAILED:
            # A replica that awaits its first turn on the device still loads: no plan may evict it.
            loads = here.state is ReplicaState.WARM and here.footprint is None
            loads = loads or self._is_outdated(worker, here)
            state = ReplicaState.ASSIGNED if loads else here.state
            batching = self._batching(command.key, worker)
            return replace(here, state=state, pinned=command.pinned, batching=batching)
        version = self._view.desired.versions.get(command.key)
        size = Footprint(0, 0)
        if version is not None:
            size = footprint(version, worker.build, self._view.footprints.current)
        return Replica(
            command.key,
            ReplicaState.ASSIGNED,
            size.weights_bytes,
            size.workspace_bytes,
            command.pinned,
        )

    def _batching(self, key: VersionKey, worker: WorkerInfo) -> BatchingConfig | None:
        version = self._view.desired.versions.get(key)
        return version.given.batching.get(worker.device_kind) if version is not None else None

    def _is_outdated(self, worker: WorkerInfo, replica: Replica) -> bool:
        version = self._view.desired.versions.get(replica.key)
        return version is not None and replica.is_outdated(version, worker.build)

    def _end(self, target: ReplicaKey) -> None:
        self._in_flight.pop(target, None)
        others = self._by_worker.get(target[0], set())
        others.discard(target[1])
        if not others:
            self._by_worker.pop(target[0], None)
        self._ended_since.add(target)
        self._view.waiters.wake(ANY)

    async def _run(self, in_flight: _InFlight, worker: WorkerInfo, token: FencingToken) -> None:
        command = in_flight.command
        log.info("command", command=str(command), token=str(token))
        try:
            if isinstance(command, Assign):
                await self._assign(command, worker, token)
            else:
                await self._release(command, worker, token)
        except YolopoolError as error:
            in_flight.refused = True
            self._refused(command, worker, error)
        except Exception:
            in_flight.refused = True
            log.exception("a command failed: this is a bug", command=str(command))
        finally:
            in_flight.replied.set()
        if in_flight.refused:
            await asyncio.sleep(RETRY_S)
        else:
            await self._settled(command, worker)

    async def _assign(self, command: Assign, worker: WorkerInfo, token: FencingToken) -> None:
        for key in command.after:
            earlier = self._in_flight.get((command.worker, key))
            if earlier is not None:
                await earlier.replied.wait()
        version = self._view.desired.versions.get(command.key)
        pack, made = version.made_by(worker.build) if version is not None else (None, None)
        if version is None or pack is None or made is None:
            return  # deleted meanwhile
        began = self._clock.monotonic()
        await self._link.assign(
            worker,
            version,
            self._pack_uri(pack.digest),
            self._view.footprints.measured(FootprintKey.of(pack.digest, made)),
            command.pinned,
            command.prefetch,
            token,
            self._load_timeout_s,
        )
        self._view.failures.succeeded((worker.id, command.key))
        took_s = self._clock.monotonic() - began
        self._metrics.load_ended("OK", took_s)
        self._recorder.record(
            EventKind.ASSIGNED,
            worker=worker.id,
            version=command.key,
            message=f"{command.why}; it took {took_s * 1000:.0f} ms",
        )

    async def _release(self, command: Release, worker: WorkerInfo, token: FencingToken) -> None:
        replica = worker.replicas.get(command.key)
        await self._link.release(worker, command.key, token, self._release_timeout_s)
        used = replica.last_used_unix_s if replica is not None else 0.0
        self._metrics.released(
            command.reason, max(0.0, self._clock.unix() - used) if used else None
        )
        self._recorder.record(
            EventKind.RELEASED,
            worker=worker.id,
            version=command.key,
            reason=command.reason,
            message=command.why,
        )

    async def _settled(self, command: Assign | Release, worker: WorkerInfo) -> None:
        """Waits until the worker's heartbeats show what its reply said."""

        def shown() -> bool | None:
            now = self._view.workers.get(worker.id)
            if now is None or now.incarnation != worker.incarnation:
                return True
            replica = now.replicas.get(command.key)
            if isinstance(command, Release):
                return True if replica is None else None
            if replica is None or replica.state not in LOADED:
                return None
            if self._is_outdated(now, replica):
                return None
            asked = (command.pinned, self._batching(command.key, worker))
            return True if (replica.pinned, replica.batching) == asked else None

        await self._view.waiters.until(command.key, shown, SETTLE_S)

    def _refused(self, command: Assign | Release, worker: WorkerInfo, error: YolopoolError) -> None:
        log.warning(
            "command refused", command=str(command), reason=error.reason, message=error.message
        )
        if isinstance(command, Release) or error.reason == "STALE_TOKEN":
            # The next plan decides again, from the next heartbeat or under a newer token.
            return
        now, target = self._clock.monotonic(), (worker.id, command.key)
        self._metrics.load_ended(error.reason, 0.0)
        if error.reason == "LEDGER_FULL":
            self._assume_needed(command, worker, error)
        if error.reason in TRANSIENT:
            self._view.failures.refuse(target, error.reason, error.message, now + RETRY_S)
        else:
            failure = self._view.failures.record(target, error.reason, error.message, now)
            self._recorder.record(
                EventKind.LOAD_FAILED,
                worker=worker.id,
                version=command.key,
                reason=error.reason,
                message=f"{error.message} (tried again in {failure.retry_at_s - now:.0f} s)",
            )

    def _assume_needed(self, command: Assign, worker: WorkerInfo, error: YolopoolError) -> None:
        """Plans with the bytes that the worker said it needs: its estimate was too low."""
        needed = int(error.details.get("needed_bytes", "0"))
        version = self._view.desired.versions.get(command.key)
        pack, made = version.made_by(worker.build) if version is not None else (None, None)
        if not needed or version is None or pack is None or made is None:
            return
        footprints = self._view.footprints
        known = footprint(version, worker.build, footprints.current)
        # `needed` is beyond what is in use, and a workspace counts only beyond the largest there.
        there = max((r.workspace_bytes for r in worker.replicas.values()), default=0)
        workspace = max(known.workspace_bytes, there + needed - known.kept_bytes)
        key = FootprintKey.of(pack.digest, made)
        footprints.assume(key, replace(known, workspace_bytes=workspace))
