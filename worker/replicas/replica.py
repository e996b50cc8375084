"""A version on this worker: what was ordered, where it stands, what it takes."""

import asyncio
from dataclasses import dataclass, field, replace

from worker.batching.config import BatchingConfig
from worker.packs.manifest import GRAPHS
from worker.packs.pack import Pack
from worker.replicas.ledger import Claim
from worker.replicas.lifecycle import Life, ReplicaState
from worker.replicas.usage import ReplicaUsage
from yolopool.errors import YolopoolError
from yolopool.server.arrival_rates import Arrivals
from yolopool.v1 import types_pb2
from yolopool.v1.worker_pb2 import PackLocation
from yolopool.vocabulary import INPUT_BYTES_PER_PIXEL

NOTHING = Claim(0)
# Until a swap was measured: what reading weights into fresh memory does on a plain host.
SWAP_BYTES_PER_S = 2e9


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an Assign asks for. `known` is what was measured of this pack before, if anything."""

    key: str  # name@version
    model: str
    number: int
    settings: types_pb2.VersionSettings
    pack: PackLocation
    precision: str
    max_batch: int
    pinned: bool
    known: types_pb2.Footprint | None = None
    # Only beside the device, until a request asks for it.
    warm: bool = False
    # Its max_batch is 0 where the worker's own is meant; None: nothing was asked for.
    batching: BatchingConfig | None = None

    def means(self, other: "Assignment") -> bool:
        """Whether both ask for the same answers. A version never changes, but the store that
        numbers them may have been emptied and begun anew.
        """
        return (self.pack.digest, self.settings, self.precision) == (
            other.pack.digest,
            other.settings,
            other.precision,
        )


@dataclass(slots=True, eq=False)
class Replica:
    """One version on this worker. Times `*_unix_s` are for people and plans, `hot_since` is of
    the worker's own clock. `wanted`: an assign waits for it to be HOT.
    """

    order: Assignment
    life: Life
    pinned: bool
    max_batch: int = 1
    batch_limit: int = 1
    claim: Claim = NOTHING
    pack: Pack | None = None
    class_names: tuple[str, ...] = ()
    stride: int = 32
    shape: tuple[int, int] = (0, 0)
    outstanding: int = 0
    requests_total: int = 0
    hits_total: int = 0
    loads_total: int = 0
    swaps_total: int = 0
    last_used_unix_s: float = 0.0
    arrivals: Arrivals = field(default_factory=Arrivals)
    usage: ReplicaUsage = field(default_factory=ReplicaUsage)
    hot_since: float = 0.0
    hot_since_unix_s: float = 0.0
    last_pass: float = 0.0
    wanted: bool = False
    # Ran out of memory on its way to the device once: the next time it is told so.
    short: bool = False
    load_s: float = 0.0
    swap_s: float = 0.0
    # From the artifact store to this machine; 0: it was here.
    fetch_s: float = 0.0
    measured: types_pb2.Footprint | None = None
    error: YolopoolError | None = None
    work: "asyncio.Task[None] | None" = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when its pack is known, or could not be read.
    fetched: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when it is HOT, has failed or is to leave: whoever waits for one of these looks again.
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> str:
        return self.order.key

    @property
    def state(self) -> ReplicaState:
        return self.life.state

    @property
    def batching(self) -> BatchingConfig:
        """As ordered, within what fits on the device now."""
        asked = self.order.batching or BatchingConfig()
        return replace(asked, max_batch=self.batch_limit).within(self.max_batch)

    def limit_batch(self, own: int) -> None:
        """Takes the largest batch that is ordered, where `own` is the worker's."""
        asked = self.order.batching.max_batch if self.order.batching is not None else 0
        limit = asked or min(self.order.max_batch or own, own)
        self.batch_limit = self.max_batch = max(1, limit)

    @property
    def manifest_pack(self) -> Pack:
        """The pack, with or without its weights; there from WARM on."""
        assert self.pack is not None, f"{self.key} is {self.state} and has no pack"
        return self.pack

    @property
    def host_bytes(self) -> int:
        """Weights it has in host memory now."""
        memory = self.pack.memory if self.pack is not None else None
        return memory.size_bytes if memory is not None else 0

    def drop_weights(self) -> None:
        """Gives the host memory back; the pack stays known."""
        if self.pack is not None:
            self.pack.close()
            self.pack = self.pack.without_weights()

    def expected(self) -> Claim:
        """Bytes to reserve on the device: measured for this batch, else what the manifest says:
        activations by the import's figure, and the input as uint8 and as float32.
        """
        manifest = self.manifest_pack.manifest
        known = self.measured or self.order.known
        transient = 0
        if manifest.backend in GRAPHS:
            transient = 2 * manifest.weights_bytes  # the file, and a runtime's copy of it
        elif self.order.precision != "fp32":
            transient = manifest.weights_bytes  # of which another precision is made
        if known is not None and known.max_batch == self.max_batch:
            return Claim(known.weights_bytes, known.workspace_bytes, known.private_bytes, transient)
        pixels = self.shape[0] * self.shape[1] * self.max_batch
        activations = pixels * manifest.activation_bytes_per_megapixel // 10**6
        workspace = activations + pixels * INPUT_BYTES_PER_PIXEL
        return Claim(manifest.weights_bytes, workspace, transient_bytes=transient)

    def expected_swap_s(self) -> float:
        """What bringing it to the device takes."""
        if self.swap_s:
            return self.swap_s
        if self.order.known is not None and self.order.known.swap_ms:
            return self.order.known.swap_ms / 1000
        return self.manifest_pack.manifest.weights_bytes / SWAP_BYTES_PER_S

    @property
    def fetch_ms(self) -> float:
        """From the store to this machine, as measured here or, where it was here, before."""
        known = self.order.known.fetch_ms if self.order.known is not None else 0.0
        return self.fetch_s * 1000 or known
