"""Reads the weights of packs into host memory, and evicts weights from it when it is full.

Reads run on low-priority threads; all methods run on the event loop. Host memory is changed only
under the swap lock. Each method says whether it takes the lock or expects its caller to hold it.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from worker.packs.eviction import CacheEntry, choose_evictions
from worker.packs.pack import Pack
from worker.replicas.replica import Replica
from worker.replicas.usage import Evictions
from yolopool.v1.worker_pb2 import PackLocation
from yolopool.vocabulary import ReplicaState

Answer = TypeVar("Answer")
# The niceness of reader threads: a load must not slow the passes that serve requests.
READER_NICE = 10
READER_THREADS = 2


class PackSource(Protocol):
    """Where packs come from; blocking."""

    def fetch(self, location: PackLocation, weights: bool = True) -> Pack: ...

    def prepare(self, location: PackLocation) -> Pack: ...


@dataclass(frozen=True, slots=True)
class TierLimits:
    """`has_host_tier`: the device has memory of its own, so weights may also stay in host memory,
    up to `host_bytes`. `fetch_weights`: the backend reads weights; a simulated one does not.
    """

    has_host_tier: bool
    host_bytes: int
    fetch_weights: bool


class PackReader:
    """`replicas` is the worker's table, by key; `lock` is the swapper's."""

    def __init__(
        self,
        packs: PackSource,
        limits: TierLimits,
        replicas: Mapping[str, Replica],
        lock: asyncio.Lock,
        clock: Callable[[], float],
    ) -> None:
        self.evictions = Evictions()
        self._packs = packs
        self._limits = limits
        self._replicas = replicas
        self._lock = lock
        self._clock = clock
        self._threads = ThreadPoolExecutor(
            READER_THREADS, thread_name_prefix="packs", initializer=_lower_priority
        )

    @property
    def host_bytes(self) -> int:
        """Weights in host memory now, of all replicas."""
        return sum(replica.host_bytes for replica in self._replicas.values())

    async def run(self, read: Callable[[], Answer]) -> Answer:
        """Runs a blocking read on a reader thread. Needs no lock."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    async def load_weights(self, replica: Replica) -> float:
        """Reads a replica's weights into host memory unless they are there; returns the seconds it
        took. The caller holds the lock.
        """
        if not self._limits.fetch_weights or replica.host_bytes:
            return 0.0
        if self._limits.has_host_tier:
            self.evict(replica.manifest_pack.manifest.weights_bytes)
        # The wait for a reader thread counts: beside passes on a CPU it is most of the time.
        began = self._clock()
        reading = asyncio.ensure_future(self.run(partial(self._packs.fetch, replica.order.pack)))
        try:
            replica.pack = await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(_close_late)
            raise
        return self._clock() - began

    async def prefetch(self, replica: Replica) -> None:
        """Reads weights into host memory that is free, for a replica that will probably be asked
        for. Takes the lock only to hand the weights over, so no swap waits for the read.
        """
        size = replica.manifest_pack.manifest.weights_bytes
        if not self._limits.has_host_tier or not self._limits.fetch_weights:
            return
        if self.host_bytes + size > self._limits.host_bytes:
            return
        pack = await self.run(partial(self._packs.fetch, replica.order.pack))
        async with self._lock:
            fits = self.host_bytes + size <= self._limits.host_bytes
            if replica.state is ReplicaState.WARM and not replica.host_bytes and fits:
                replica.pack = pack
            else:
                pack.close()

    def evict(self, need_bytes: int) -> None:
        """Drops the least valuable weights from host memory until `need_bytes` more fit its
        budget. The caller holds the lock.
        """
        if not self._limits.has_host_tier:
            return
        now = self._clock()
        entries = [
            cache_entry(replica, replica.expected_swap_s(), now, held_s=0.0)
            for replica in self._replicas.values()
            if replica.host_bytes
        ]
        for key in choose_evictions(entries, need_bytes, self._limits.host_bytes).keys:
            self.evictions.add(self._replicas[key].used_s, now)
            self._replicas[key].drop_weights()

    def close(self) -> None:
        """Starts no more reads, and does not wait for those that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def cache_entry(replica: Replica, swap_s: float, now: float, held_s: float) -> CacheEntry:
    """What an eviction policy needs to know about a replica that was in memory for `held_s`."""
    size, rate = replica.manifest_pack.manifest.weights_bytes, replica.arrivals.now(now).estimate
    return CacheEntry(replica.key, size, swap_s, rate, replica.last_used_unix_s, held_s)


def _close_late(reading: "asyncio.Future[Pack]") -> None:
    if not reading.cancelled() and reading.exception() is None:
        reading.result().close()


def _lower_priority() -> None:
    # On Linux niceness belongs to the thread.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), READER_NICE)
