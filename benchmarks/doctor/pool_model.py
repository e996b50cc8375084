"""A pool in virtual time that writes the lines of a request log: arrivals, decoding, loads, queues,
batches and devices, with whatever is wrong about them.

It knows nothing of the doctor: a situation changes the physics (less memory, a slower clock, larger
images), and the lines show what that does.
"""

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

GIB = 2**30
EPOCH_S = 1764576000.0
MODEL_PIXELS = 640
MAX_QUEUE = 256
HOP_MS = 1.0
QUIET_LOAD = 0.4


@dataclass(slots=True)
class Caller:
    """Sends images of one size; gives up after `patience_ms` and sends again up to `retries` times.

    `share`: of all requests.
    """

    name: str
    share: float = 1.0
    width: int = 1280
    height: int = 960
    retries: int = 0
    patience_ms: float = math.inf


@dataclass(slots=True)
class Physics:
    """What the pool is made of. Times in ms, rates a second. A pass of n images takes
    fixed_ms + image_ms x n, divided by the clock and times what memory and the host do to it.
    """

    seconds: float = 60.0
    rate: float = 20.0
    callers: list[Caller] = field(default_factory=lambda: [Caller("key:cameras")])
    models: int = 1
    devices: int = 1
    kind: str = "cuda"
    fixed_ms: float = 8.0
    image_ms: float = 3.0
    max_batch: int = 8
    deadline_ms: float = 10_000.0
    decode_ms_a_megapixel: float = 8.0
    decode_threads: int = 4
    bytes_a_ms: float = 3e6  # images to the device
    resident: int = 99  # models that fit a device
    load_ms: float = 400.0
    cold_ms: float = 0.0  # of the first pass of each model and size of batch after a load
    restarts: tuple[float, ...] = ()  # seconds at which workers begin anew
    slowness: tuple[float, ...] = ()  # of each device; missing: 1
    device_bytes: int = 16 * GIB
    # Memory in use at the beginning and at the end, as parts of the device.
    used: tuple[float, float] = (0.35, 0.4)
    pressure: float = 0.0  # how much slower a pass is with no memory left
    clock_falls: tuple[float, float] | None = None  # second, and what is left of the clock
    neighbour: tuple[float, float, float] | None = None  # from, to, and its load of the host
    neighbour_costs: float = 0.5  # of each unit of load above one, to what runs on the host
    plane_ms: float = 0.5  # of a control plane's one processor for each request
    bursts: float = 1.0  # rate of every second ten seconds, times


@dataclass(slots=True, eq=False)
class _Ticket:
    id: str
    caller: Caller
    model: str
    sent_ms: float
    retry: int
    hit: bool = True
    load_wait_ms: float = 0.0
    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    queued_ms: float = 0.0
    waiting: int = 0
    is_over: bool = False


class _Device:
    def __init__(self, number: int) -> None:
        self.number = number
        self.free_ms = 0.0
        self.threads: list[float] = []
        self.queue: list[_Ticket] = []
        self.running = 0
        self.held: dict[str, float] = {}  # model: when it was used last
        self.loading: dict[str, float] = {}
        self.ran: set[tuple[str, int]] = set()
        self.batches = 0
        self.busy: list[tuple[float, float]] = []

    @property
    def outstanding(self) -> int:
        return len(self.queue) + self.running


class PoolModel:
    """One run: `lines` it once."""

    def __init__(self, physics: Physics, rng: Random) -> None:
        self._physics, self._rng = physics, rng
        self._devices = [_Device(number) for number in range(physics.devices)]
        for device in self._devices:
            device.threads = [0.0] * physics.decode_threads
            for number in range(min(physics.models, physics.resident)):
                device.held[f"m{number}"] = 0.0
        self._events: list[tuple[float, int, str, Any]] = []
        self._numbers = itertools.count()
        self._lines: list[dict[str, Any]] = []
        self._plane_free_ms = 0.0

    def lines(self) -> list[dict[str, Any]]:
        """Lines of all requests, in the order in which they ended."""
        for at_ms, caller, model in self._arrivals():
            self._push(at_ms, "arrive", (caller, model, 0))
        for second in self._physics.restarts:
            self._push(1000 * second, "restart", None)
        while self._events:
            now, _, what, about = heapq.heappop(self._events)
            getattr(self, f"_{what}")(now, about)
        return sorted(self._lines, key=lambda line: str(line["timestamp"]))

    def _push(self, at_ms: float, what: str, about: Any) -> None:
        heapq.heappush(self._events, (at_ms, next(self._numbers), what, about))

    def _arrivals(self) -> Iterator[tuple[float, Caller, str]]:
        physics, rng, now = self._physics, self._rng, 0.0
        weights = [caller.share for caller in physics.callers]
        while now < 1000 * physics.seconds:
            high = int(now / 10_000) % 2 == 1
            rate = physics.rate * (physics.bursts if high else 1.0)
            now += 1000 * rng.expovariate(rate)
            (caller,) = rng.choices(physics.callers, weights)
            yield now, caller, f"m{rng.randrange(physics.models)}"

    # --- what happens -----------------------------------------------------------------------------

    def _restart(self, now: float, _: None) -> None:
        for device in self._devices:
            device.ran.clear()

    def _arrive(self, now: float, about: tuple[Caller, str, int]) -> None:
        caller, model, retry = about
        number = next(self._numbers)
        ticket = _Ticket(f"r{number}", caller, model, now, retry)
        holders = [one for one in self._devices if model in one.held]
        device = min(holders or self._devices, key=lambda one: one.outstanding)
        if caller.retries > retry:
            self._push(now + caller.patience_ms, "give_up", (ticket, device))
        if holders:
            device.held[model] = now
            begins = max(now, self._plane_free_ms)
            self._plane_free_ms = begins + self._physics.plane_ms * self._rng.lognormvariate(0, 0.2)
            self._push(self._plane_free_ms, "go_on", (ticket, device))
            return
        ticket.hit = False
        ready = device.loading.get(model)
        if ready is None:
            begins = max([now, *device.loading.values()])
            ready = begins + self._physics.load_ms * self._rng.lognormvariate(0, 0.1)
            device.loading[model] = ready
            self._push(ready, "loaded", (device, model))
        ticket.load_wait_ms = ready - now
        self._push(ready + 0.01, "go_on", (ticket, device))

    def _loaded(self, now: float, about: tuple[_Device, str]) -> None:
        device, model = about
        del device.loading[model]
        while len(device.held) >= self._physics.resident:
            oldest = min(device.held, key=lambda one: device.held[one])
            del device.held[oldest]
            device.ran = {one for one in device.ran if one[0] != oldest}
        device.held[model] = now

    def _go_on(self, now: float, about: tuple[_Ticket, _Device]) -> None:
        self._decode(now, *about)

    def _decode(self, now: float, ticket: _Ticket, device: _Device) -> None:
        physics, caller = self._physics, ticket.caller
        megapixels = caller.width * caller.height / 1e6
        slow = self._host_slowness(now) * self._rng.lognormvariate(0, 0.1)
        ticket.decode_ms = megapixels * physics.decode_ms_a_megapixel * slow
        ticket.preprocess_ms = (0.3 + megapixels * 0.4) * slow
        thread = min(range(len(device.threads)), key=lambda one: device.threads[one])
        begins = max(now, device.threads[thread])
        device.threads[thread] = ends = begins + ticket.decode_ms + ticket.preprocess_ms
        self._push(ends, "queue", (ticket, device))

    def _queue(self, now: float, about: tuple[_Ticket, _Device]) -> None:
        ticket, device = about
        ticket.queued_ms, ticket.waiting = now, device.outstanding
        if ticket.is_over:
            return
        if device.outstanding >= MAX_QUEUE:
            self._end(now, ticket, device, "QUEUE_FULL")
            return
        device.queue.append(ticket)
        if not device.running:
            self._take(now, device)

    def _give_up(self, now: float, about: tuple[_Ticket, _Device]) -> None:
        ticket, device = about
        if ticket.is_over:
            return
        self._end(now, ticket, device, "CANCELLED")
        device.queue = [one for one in device.queue if one is not ticket]
        self._push(now, "arrive", (ticket.caller, ticket.model, ticket.retry + 1))

    def _take(self, now: float, device: _Device) -> None:
        physics = self._physics
        late = [one for one in device.queue if now - one.sent_ms > physics.deadline_ms]
        for one in late:
            self._end(now, one, device, "DEADLINE_EXCEEDED")
        device.queue = [one for one in device.queue if not one.is_over]
        if not device.queue:
            return
        model = device.queue[0].model
        batch = [one for one in device.queue if one.model == model][: physics.max_batch]
        device.queue = [one for one in device.queue if one not in batch]
        device.running, device.batches = len(batch), device.batches + 1
        clock = self._clock(now)
        kind = (model, len(batch))
        cold = kind not in device.ran
        device.ran.add(kind)
        retries = self._memory_retries(now)
        took = (physics.fixed_ms + physics.image_ms * len(batch)) / clock
        took *= self._memory_slowness(now) * self._rng.lognormvariate(0, 0.04) * (1 + 0.8 * retries)
        if device.number < len(physics.slowness):
            took *= physics.slowness[device.number]
        if physics.kind == "cpu":
            took *= self._host_slowness(now)
        took += physics.cold_ms * self._rng.lognormvariate(0, 0.2) if cold else 0.0
        transfer = len(batch) * 3 * MODEL_PIXELS**2 / physics.bytes_a_ms
        ends = now + transfer + took
        device.busy.append((now, ends))
        about = (device, batch, took, transfer, cold, retries, now)
        self._push(ends, "done", about)

    def _done(self, now: float, about: Any) -> None:
        device, batch, took, transfer, cold, retries, began = about
        device.running = 0
        for ticket in batch:
            if not ticket.is_over:
                self._answer(now, ticket, device, len(batch), took, transfer, cold, retries, began)
        self._take(now, device)

    # --- what the world does to it ----------------------------------------------------------------

    def _host_load(self, now: float) -> float:
        neighbour = self._physics.neighbour
        load = QUIET_LOAD
        if neighbour is not None and neighbour[0] <= now / 1000 < neighbour[1]:
            load += neighbour[2]
        return load * self._rng.lognormvariate(0, 0.1)

    def _host_slowness(self, now: float) -> float:
        neighbour = self._physics.neighbour
        if neighbour is None or not neighbour[0] <= now / 1000 < neighbour[1]:
            return 1.0
        return 1.0 + self._physics.neighbour_costs * max(0.0, neighbour[2] - 0.6)

    def _clock(self, now: float) -> float:
        falls = self._physics.clock_falls
        return falls[1] if falls is not None and now / 1000 >= falls[0] else 1.0

    def _used(self, now: float) -> float:
        begin, end = self._physics.used
        return min(0.999, begin + (end - begin) * now / 1000 / self._physics.seconds)

    def _near(self, now: float) -> float:
        """How far the device is into its last tenth of memory, 0..1."""
        return max(0.0, (self._used(now) - 0.9) / 0.1)

    def _memory_slowness(self, now: float) -> float:
        return 1.0 + self._physics.pressure * self._near(now) ** 2

    def _memory_retries(self, now: float) -> int:
        if not self._physics.pressure:
            return 0
        return int(self._rng.random() < 0.3 * self._near(now) ** 2)

    # --- lines ------------------------------------------------------------------------------------

    def _frame(self, now: float, ticket: _Ticket, device: _Device, outcome: str) -> dict[str, Any]:
        ticket.is_over = True
        stamp = datetime.fromtimestamp(EPOCH_S + now / 1000, UTC).isoformat(timespec="microseconds")
        line: dict[str, Any] = {
            "timestamp": stamp.replace("+00:00", "Z"),
            "level": "info" if outcome == "OK" else "warning",
            "event": "request",
            "process": "control-plane",
            "request_id": ticket.id,
            "outcome": outcome,
            "model": ticket.model,
            "version": 1,
            "principal": ticket.caller.name,
            "peer": f"10.0.0.{1 + sum(ticket.caller.name.encode()) % 200}",
            "door": "grpc",
            "deadline_ms": self._physics.deadline_ms,
            "worker": f"w{device.number}",
            "hit": ticket.hit,
            "input_bytes": int(ticket.caller.width * ticket.caller.height * 0.12),
            "load_wait_ms": round(ticket.load_wait_ms, 3),
            "total_ms": round(now - ticket.sent_ms + HOP_MS, 3),
        }
        if ticket.retry:
            line["client_retry"] = ticket.retry
        return line

    def _end(self, now: float, ticket: _Ticket, device: _Device, outcome: str) -> None:
        self._lines.append(self._frame(now, ticket, device, outcome) | {"message": outcome})

    def _answer(
        self,
        now: float,
        ticket: _Ticket,
        device: _Device,
        size: int,
        took: float,
        transfer: float,
        cold: bool,
        retries: int,
        began: float,
    ) -> None:
        physics, caller, rng = self._physics, ticket.caller, self._rng
        post = 0.4 * rng.lognormvariate(0, 0.2)
        line = self._frame(now + post, ticket, device, "OK")
        scale = MODEL_PIXELS / max(caller.width, caller.height)
        used = int(self._used(now) * physics.device_bytes)
        device.busy = [one for one in device.busy if one[1] > now - 1000]
        busy = sum(end - max(begin, now - 1000) for begin, end in device.busy) / 1000
        line |= {
            "variant": "torch/fp32",
            "device": f"{physics.kind}:{'GPU-' if physics.kind == 'cuda' else ''}{device.number}",
            "input_width": caller.width,
            "input_height": caller.height,
            "letterbox_width": 32 * math.ceil(caller.width * scale / 32),
            "letterbox_height": 32 * math.ceil(caller.height * scale / 32),
            "batch_size": size,
            "batch_id": device.batches,
            "cold": cold,
            "memory_retries": retries,
            "queue_length": ticket.waiting,
            "route_ms": 0.2,
            "queue_ms": round(began - ticket.queued_ms, 3),
            "decode_ms": round(ticket.decode_ms, 3),
            "preprocess_ms": round(ticket.preprocess_ms + transfer, 3),
            "transfer_ms": round(transfer, 3),
            "inference_ms": round(took, 3),
            "postprocess_ms": round(post, 3),
            "detections": rng.randrange(6),
            "ledger_used_bytes": int(0.3 * physics.device_bytes),
            "device_used_bytes": used,
            "device_free_bytes": physics.device_bytes - used,
            "device_utilisation": round(min(1.0, busy), 3),
            "host_load": round(self._host_load(now), 3),
        }
        if physics.kind == "cuda":
            clock = self._clock(now)
            line["device_clock_ratio"] = round(clock * rng.uniform(0.97, 1.0), 3)
            line["device_temperature_c"] = round(60 + (28 if clock < 1 else 0) + rng.gauss(0, 1))
            if clock < 1:
                line["throttled"] = ["thermal"]
        self._lines.append(line)
