"""What a migration does to the pool, as data: each step is one command of the command line."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolopool.client.model_records import Batching


@dataclass(frozen=True, slots=True)
class Register:
    """Uploads a file as the next version; `image_size` is pixels, or (height, width)."""

    model: str
    path: Path
    image_size: int | tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()

    def words(self) -> list[str]:
        words = ["register", self.model, str(self.path)]
        if self.image_size is not None:
            size = self.image_size
            sides = (size,) if isinstance(size, int) else size
            words += ["--imgsz", ",".join(map(str, sides))]
        return words + (["--names", ",".join(self.class_names)] if self.class_names else [])


@dataclass(frozen=True, slots=True)
class SetBatching:
    """Sets how the version's images share passes on one kind of device."""

    model: str
    device_kind: str
    batching: Batching

    def words(self) -> list[str]:
        asked = self.batching
        words = ["batching", self.model, "--device", self.device_kind]
        words += ["--max-batch", str(asked.max_batch)]
        if asked.preferred_sizes:
            words += ["--prefer", ",".join(map(str, asked.preferred_sizes))]
        if asked.max_delay_ms:
            words += ["--max-delay-ms", f"{asked.max_delay_ms:g}"]
        return words + (["--queue", str(asked.queue_capacity)] if asked.queue_capacity else [])


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Sets what the model is worth where memory is scarce."""

    model: str
    priority: str

    def words(self) -> list[str]:
        return ["placement", self.model, "--priority", self.priority]


@dataclass(frozen=True, slots=True)
class SetResidency:
    """Sets how long the version stays loaded, and whether a CPU may serve it beside GPUs."""

    model: str
    mode: str
    cpu_fallback: bool

    def words(self) -> list[str]:
        words = ["residency", self.model, "--mode", self.mode]
        return words + (["--cpu-fallback"] if self.cpu_fallback else [])


@dataclass(frozen=True, slots=True)
class Load:
    """Loads the version on a number of workers."""

    model: str
    replicas: int
    pin: bool

    def words(self) -> list[str]:
        words = ["load", self.model, "--replicas", str(self.replicas), "--no-wait"]
        return words + (["--pin"] if self.pin else [])


Step = Register | SetBatching | SetPriority | SetResidency | Load


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the other server's settings, and what becomes of it here."""

    place: str
    said: str
    becomes: str
    taken: bool


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What becomes of one model. Without steps it is not taken, and its lines say why."""

    source: str
    model: str
    steps: tuple[Step, ...]
    lines: tuple[Line, ...]


def command(step: Step) -> str:
    """The command that does the step, as a shell takes it."""
    return shlex.join(["yolopool", "models", *step.words()])


def left_out(plans: Sequence[ModelPlan]) -> int:
    """How many lines are not taken."""
    return sum(not line.taken for plan in plans for line in plan.lines)
