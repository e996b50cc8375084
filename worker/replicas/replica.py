"""A version on this worker: what was ordered, its state, and what it takes of the device."""

import asyncio
from dataclasses import dataclass, field, replace

from worker.batching.config import BatchingConfig
from worker.batching.goal_control import GoalControl, Took
from worker.packs.manifest import GRAPHS
from worker.packs.pack import Pack
from worker.replicas.ledger import Claim
from worker.replicas.lifecycle import ReplicaLife
from worker.replicas.usage import ReplicaUsage, Sight
from yolopool.errors import YolopoolError
from yolopool.server.arrival_rates import Arrivals
from yolopool.v1 import types_pb2
from yolopool.v1.worker_pb2 import PackLocation
from yolopool.vocabulary import INPUT_BYTES_PER_PIXEL, ReplicaState

NOTHING = Claim(0)
# Assumed until a swap was measured: the speed of reading weights into fresh memory.
SWAP_BYTES_PER_S = 2e9


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an Assign asks for. `known` was measured of this pack before, if anything was."""

    key: str  # name@version
    model: str
    number: int
    settings: types_pb2.VersionSettings
    pack: PackLocation
    precision: str
    max_batch: int
    pinned: bool
    known: types_pb2.Footprint | None = None
    # Keep it off the device until a request asks for it.
    warm: bool = False
    # A max_batch of 0 means the worker's own. None: the order says nothing about batching.
    batching: BatchingConfig | None = None

    def means(self, other: "Assignment") -> bool:
        """Whether both ask for the same answers. A version never changes, but its number may be
        given anew after the store was emptied.
        """
        return (self.pack.digest, self.settings, self.precision) == (
            other.pack.digest,
            other.settings,
            other.precision,
        )


@dataclass(slots=True, eq=False)
class Replica:
    """One version on this worker, as a mutable record of the event loop. Times `*_unix_s` are for
    people and for plans; `hot_since` and `last_pass` are of the worker's monotonic clock.
    """

    # Written by ReplicaTable; the Swapper too changes the life, by its table, and sets the error.
    order: Assignment
    life: ReplicaLife
    pinned: bool
    class_names: tuple[str, ...] = ()
    stride: int = 32
    shape: tuple[int, int] = (0, 0)
    batch_limit: int = 1
    outstanding: int = 0
    requests_total: int = 0
    hits_total: int = 0
    loads_total: int = 0
    last_used_unix_s: float = 0.0
    arrivals: Arrivals = field(default_factory=Arrivals)
    load_s: float = 0.0
    # From the artifact store to this machine; 0: it was here already.
    fetch_s: float = 0.0
    error: YolopoolError | None = None
    # The load or the release that is under way.
    work: "asyncio.Task[None] | None" = None
    # Set when it has no ticket left.
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when its pack is known, or could not be read.
    fetched: asyncio.Event = field(default_factory=asyncio.Event)

    # Written by the Swapper and its PackReader.
    max_batch: int = 1
    claim: Claim = NOTHING
    pack: Pack | None = None
    swaps_total: int = 0
    # How its graph last answered otherwise than at its import.
    self_test: str = ""
    # What its answers found, and when the picture that is kept with it was asked last.
    sight: Sight = field(default_factory=Sight)
    probed_s: float = 0.0
    hot_since: float = 0.0
    hot_since_unix_s: float = 0.0
    swap_s: float = 0.0
    measured: types_pb2.Footprint | None = None
    # Ran out of memory once while loading: the next time the load fails.
    short: bool = False

    # Written by both. `wanted`: an assign waits for it to be HOT.
    wanted: bool = False
    # Set when it is HOT, has failed or is to leave: those who wait for one of these look again.
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    # Written by the service, behind each request, and by all that run a pass.
    usage: ReplicaUsage = field(default_factory=ReplicaUsage)
    last_pass: float = 0.0
    # Only where its order has a p99 goal.
    control: GoalControl | None = None

    @property
    def key(self) -> str:
        return self.order.key

    @property
    def state(self) -> ReplicaState:
        return self.life.state

    @property
    def used_s(self) -> float:
        """When it was used last, or came to the device unused; 0: neither."""
        return max(self.last_pass, self.hot_since)

    @property
    def batching(self) -> BatchingConfig:
        """As ordered, within what fits the device now."""
        asked = self.order.batching or BatchingConfig()
        return replace(asked, max_batch=self.batch_limit).within(self.max_batch)

    def batching_at(self, now: float) -> BatchingConfig:
        """What requests are queued with: `batching`, adapted to its p99 goal if it has one."""
        allowed = self.batching
        if not allowed.p99_goal_s or allowed.fixed:
            self.control = None
            return allowed
        if self.control is None:
            self.control = GoalControl(allowed, now)
        return self.control.batching(allowed)

    def took(self, took: Took, now: float) -> None:
        """Notes what a request took, for the p99 goal."""
        if self.control is not None:
            self.control.answered(took, now)

    def limit_batch(self, own: int) -> None:
        """Sets the largest batch to the ordered one; `own` is the worker's largest."""
        asked = self.order.batching.max_batch if self.order.batching is not None else 0
        limit = asked or min(self.order.max_batch or own, own)
        self.batch_limit = self.max_batch = max(1, limit)

    @property
    def manifest_pack(self) -> Pack:
        """The pack, with or without its weights; it is there from WARM on."""
        assert self.pack is not None, f"{self.key} is {self.state} and has no pack"
        return self.pack

    @property
    def host_bytes(self) -> int:
        """Bytes of its weights in host memory now."""
        memory = self.pack.memory if self.pack is not None else None
        return memory.size_bytes if memory is not None else 0

    def drop_weights(self) -> None:
        """Gives the host memory back; the manifest stays."""
        if self.pack is not None:
            self.pack.close()
            self.pack = self.pack.without_weights()

    def expected(self) -> Claim:
        """Bytes to reserve on the device: as measured for this batch, else by the manifest, which
        gives the activations; the input counts as uint8 and as float32.
        """
        manifest = self.manifest_pack.manifest
        known = self.measured or self.order.known
        transient = 0
        if manifest.backend in GRAPHS:
            # The file, the runtime's copy of it, and a pass beside those of other models.
            transient = 2 * manifest.weights_bytes + self._first_passes_bytes()
        elif self.order.precision != "fp32":
            transient = manifest.weights_bytes  # the float32 weights that are converted
        if known is not None and known.max_batch == self.max_batch:
            return Claim(known.weights_bytes, known.workspace_bytes, known.private_bytes, transient)
        workspace = self._workspace_bytes(self.shape[0] * self.shape[1] * self.max_batch)
        return Claim(manifest.weights_bytes, workspace, transient_bytes=transient)

    def _first_passes_bytes(self) -> int:
        """Of the pass that warms a graph up, or of its self-test."""
        manifest = self.manifest_pack.manifest
        test = manifest.self_test.height * manifest.self_test.width
        images = manifest.onnx.batch or 1
        return self._workspace_bytes(max(self.shape[0] * self.shape[1], test) * images)

    def _workspace_bytes(self, pixels: int) -> int:
        """By the manifest."""
        activations = pixels * self.manifest_pack.manifest.activation_bytes_per_megapixel // 10**6
        return activations + pixels * INPUT_BYTES_PER_PIXEL

    def note_measured(self) -> None:
        """Keeps what the claim and the times of this load turned out to be."""
        self.measured = types_pb2.Footprint(
            weights_bytes=self.claim.weights_bytes,
            workspace_bytes=self.claim.workspace_bytes,
            private_bytes=self.claim.private_bytes,
            max_batch=self.max_batch,
            swap_ms=self.swap_s * 1000,
            fetch_ms=self.fetch_ms,
        )

    def expected_swap_s(self) -> float:
        """How long a swap onto the device takes: as measured, else as estimated."""
        if self.swap_s:
            return self.swap_s
        if self.order.known is not None and self.order.known.swap_ms:
            return self.order.known.swap_ms / 1000
        return self.manifest_pack.manifest.weights_bytes / SWAP_BYTES_PER_S

    @property
    def fetch_ms(self) -> float:
        """How long a fetch from the store to this machine takes: as measured here, else as
        measured before.
        """
        known = self.order.known.fetch_ms if self.order.known is not None else 0.0
        return self.fetch_s * 1000 or known
