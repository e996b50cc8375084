"""Settings of a worker process and of its supervisor: one frozen object, read once at start.

The only reader of the environment (YOLOPOOL_WORKER_*) and of the command line, which wins.
"""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, CliApp, NoDecode, SettingsConfigDict

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?i?b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
# What a device gives to models where nothing is said. Half of a host is left to others, whereas
# a GPU is the pool's own; a simulated device has no memory to measure.
_DEFAULT_FRACTION = {"cpu": 0.5, "cuda": 0.8}
SIMULATED_MEMORY_BYTES = 8 * 1024**3
# What says "no budget" where that has a meaning.
_NONE = {"memory_budget": "", "host_memory": "0", "drift_limit": "0", "graphs": "0"}


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """A number of bytes, or a fraction (0..1) of what the device has; exactly one is set."""

    size_bytes: int | None = None
    fraction: float | None = None

    def resolve(self, available_bytes: int) -> int:
        """Bytes of budget on a device that has so many."""
        if self.size_bytes is not None:
            return self.size_bytes
        return int(available_bytes * (self.fraction or 0.0))

    def __str__(self) -> str:
        return str(self.size_bytes if self.size_bytes is not None else self.fraction)


def parse_budget(text: str) -> MemoryBudget:
    """Reads `4294967296`, `4GiB`, `500MB` or `0.8`; raises ValueError saying the forms."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no memory budget: give bytes, 4GiB, 500MB or 0.8")
    number, unit = float(match["number"]), match["unit"].lower()
    if not unit and 0 < number <= 1 and "." in match["number"]:
        return MemoryBudget(fraction=number)
    base = 1024 if "i" in unit else 1000
    size = int(number * base ** _POWERS[unit.rstrip("b").rstrip("i")])
    if size < 1:
        raise ValueError(f"{text!r} is no memory budget: it must be above 0")
    return MemoryBudget(size_bytes=size)


def default_budget(device_kind: str) -> MemoryBudget:
    """The budget of a device for which none is set."""
    if device_kind == "sim":
        return MemoryBudget(size_bytes=SIMULATED_MEMORY_BYTES)
    return MemoryBudget(fraction=_DEFAULT_FRACTION[device_kind])


class Settings(BaseSettings):
    """Flags of `python -m worker`; each field is `--kebab-case` and YOLOPOOL_WORKER_UPPER_CASE."""

    model_config = SettingsConfigDict(
        env_prefix="YOLOPOOL_WORKER_",
        frozen=True,
        cli_prog_name="python -m worker",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    device: str = Field(
        "",
        pattern=r"^(|cpu(:[0-9+-]+)?|cuda(:[A-Za-z0-9/-]+)?|sim:\d+)$",
        description="serve this one device (cpu, cpu:0-3, cuda:GPU-<uuid>, cuda:MIG-<uuid>, "
        "sim:N) in this process; without it, supervise one such process a device",
    )
    devices: str = Field(
        "auto",
        description="of the supervisor: auto, or a list such as cuda, cpu,sim:2, or cpu:2x8 (two "
        "workers bound to eight cores each)",
    )
    control_planes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:50051",), description="host:port of every control plane, comma separated"
    )
    data_dir: Path = Field(
        Path("~/.cache/yolopool/worker"), description="folder of the local pack cache"
    )
    memory_budget: str = Field(
        "", description="bytes, 4GiB, 500MB, or a fraction of the device such as 0.8"
    )
    max_hot: int = Field(0, ge=0, description="models on the device at once; 0: as fit its bytes")
    host_memory: str = Field(
        "0.25",
        description="what weights may take of host memory beside a CUDA device: 32GiB, 0.25, or 0",
    )
    pack_cache: str = Field(
        "32GiB", description="weights of all versions taken, and the local copies of their packs"
    )
    rewarm_idle_s: float = Field(
        0, ge=0, description="warm a model up again that did not run for so long; 0: never"
    )
    drift_limit: str = Field(
        "512MiB", description="memory that did not come back before the process is replaced; 0: any"
    )
    handover: Path | None = Field(
        None, description="file by which a worker asks for its successor; set by the supervisor"
    )
    black_box: int = Field(
        0, ge=0, description="open file for the requests in hand; set by the supervisor"
    )
    hang_floor_s: float = Field(
        10.0, gt=0, description="of a pass that does not end, or twice its estimate if that is more"
    )
    hang_load_s: float = Field(
        120.0, gt=0, description="likewise of a load, and of the first pass of a version"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="port to listen on; 0: any free one")
    advertise: str = Field("", description="host:port that control planes are to call")
    id: str = Field("", max_length=120, description="name of the worker; <hostname>-<device>")
    labels: str = Field("", description="k=v,k=v: what placement may match")
    skip_warmup: bool = Field(False, description="take requests before the warm-up passes")
    compute_threads: int = Field(
        0, ge=0, description="of a CPU device; 0: both of two, else one less"
    )
    intake_threads: int = Field(0, ge=0, description="that decode images; 0: two, four on CUDA")
    intake_memory: str = Field("256MiB", description="for pixels between decoding and device")
    io_processes: int = Field(
        0,
        ge=0,
        le=64,
        description="that take Infer calls and prepare images; 0: threads of the worker. With a "
        "--port they listen on the next ones",
    )
    queue_capacity: int = Field(64, ge=1, description="tickets that may wait for the device")
    max_batch: int = Field(0, ge=0, le=256, description="images a pass; 0: 4 on a CPU, else 16")
    max_image_bytes: int = Field(32 * 1024**2, ge=1, description="of one encoded image")
    max_image_pixels: int = Field(100_000_000, ge=1, description="of one image")
    drain_grace_s: float = Field(3.0, ge=0, description="time for the last tickets at the end")
    sim_faults: str = Field(
        "",
        pattern=r"^(|(crash|hang)=\d+(,(crash|hang)=\d+)*)$",
        description="for tests, of simulated devices: crash=N,hang=N at images whose mean is N",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="that models compute in here; fp16 on CUDA only"
    )
    compute_class: str = Field(
        "",
        pattern=r"^[a-z0-9_-]{0,32}$",
        description="for tests: say that the device is of this compute class; empty: its own",
    )
    graphs: str = Field(
        "0", description="what captured CUDA graphs may take of the device, e.g. 512MiB; 0: none"
    )
    tensorrt: bool = Field(
        False, description="of a CUDA device: run packs built for TensorRT too; experimental"
    )
    die_with_parent: bool = Field(False, description="end when the parent process ends")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = Field(True, description="one JSON object a line, for machines")

    @field_validator("control_planes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("data_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator(
        "memory_budget", "host_memory", "pack_cache", "drift_limit", "intake_memory", "graphs"
    )
    @classmethod
    def _check_budget(cls, value: str, info: ValidationInfo) -> str:
        if value != _NONE.get(info.field_name or ""):
            budget = parse_budget(value)
            if info.field_name == "intake_memory" and budget.size_bytes is None:
                raise ValueError(f"{value!r} is a part of nothing: give bytes, such as 256MiB")
        return value

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: str) -> str:
        parse_labels(value)
        return value

    @property
    def device_kind(self) -> str:
        """cpu, cuda or sim; empty for the supervisor."""
        return self.device.partition(":")[0]

    @property
    def worker_id(self) -> str:
        return self.id or f"{socket.gethostname()}-{self.device.replace(':', '-')}"

    def budget(self) -> MemoryBudget:
        return (
            parse_budget(self.memory_budget)
            if self.memory_budget
            else default_budget(self.device_kind)
        )

    def host_bytes(self, memory_bytes: int) -> int:
        """Weights that may stay in host memory beside the device."""
        if self.host_memory == "0":
            return 0
        return parse_budget(self.host_memory).resolve(memory_bytes)

    def pack_cache_bytes(self) -> int:
        """Weights of all versions that are taken."""
        return parse_budget(self.pack_cache).resolve(0)

    def intake_bytes(self) -> int:
        """Of one arena; each I/O process has one."""
        return parse_budget(self.intake_memory).resolve(0)

    def drift_limit_bytes(self) -> int:
        """0: no limit."""
        return 0 if self.drift_limit == "0" else parse_budget(self.drift_limit).resolve(0)

    def graph_bytes(self) -> int:
        """0: none are captured, as on any device but CUDA."""
        if self.graphs == "0" or self.device_kind != "cuda":
            return 0
        return parse_budget(self.graphs).resolve(0)

    def batch_limit(self) -> int:
        """Measured on CPUs: beyond four images a pass costs more an image, not less."""
        return self.max_batch or (4 if self.device_kind == "cpu" else 16)

    def arguments(self, **changes: Any) -> list[str]:
        """The command line that gives a child process these settings, with changes.

        All of them, since the child may inherit variables that the command line overrode here.
        """
        arguments = []
        for name, value in {**self.model_dump(), **changes}.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(f"--{flag}" if value else f"--no-{flag}")
            elif value is not None:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                arguments.append(f"--{flag}={text}")
        return arguments


def parse_labels(text: str) -> dict[str, str]:
    """Reads `zone=a,gpu=l4`; raises ValueError saying the form."""
    labels = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{part!r} is no label: labels are given as k=v,k=v")
        labels[key.strip()] = value.strip()
    return labels


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Reads the command line (by default this process's) and the environment."""
    return CliApp.run(Settings, cli_args=arguments)
