"""The settings of a worker process and of its supervisor: one frozen object, read once at start.

Nothing else reads the environment (YOLOPOOL_WORKER_*) or the command line, which wins.
"""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import CliApp, NoDecode, SettingsConfigDict

from yolopool.tls import worker_ids
from yolopool.tls.authority import shown
from yolopool.tls.process_settings import PoolProcess, split
from yolopool.transport import check_exposure, is_loopback
from yolopool.vocabulary import COMPUTE_CLASS, MAX_RAW_BYTES, SANDBOX

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?i?b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
# The default budget. Half of a host is left to others, whereas a GPU is the pool's own. A simulated
# device has no memory to measure.
_DEFAULT_FRACTION = {"cpu": 0.5, "cuda": 0.8}
SIMULATED_MEMORY_BYTES = 8 * 1024**3
# The values that mean "no budget", for the settings that may have none.
_NONE = {"memory_budget": "", "host_memory": "0", "drift_limit": "0", "graphs": "0"}


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes, or a fraction (0..1) of the device's memory. Exactly one of them is set."""

    size_bytes: int | None = None
    fraction: float | None = None

    def resolve(self, available_bytes: int) -> int:
        """The budget in bytes, on a device with so many bytes."""
        if self.size_bytes is not None:
            return self.size_bytes
        return int(available_bytes * (self.fraction or 0.0))

    def __str__(self) -> str:
        return str(self.size_bytes if self.size_bytes is not None else self.fraction)


def parse_budget(text: str) -> MemoryBudget:
    """Reads `4294967296`, `4GiB`, `500MB` or `0.8`. Raises ValueError, which names these forms."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a memory budget: give bytes, 4GiB, 500MB or 0.8")
    number, unit = float(match["number"]), match["unit"].lower()
    if not unit and 0 < number <= 1 and "." in match["number"]:
        return MemoryBudget(fraction=number)
    base = 1024 if "i" in unit else 1000
    size = int(number * base ** _POWERS[unit.rstrip("b").rstrip("i")])
    if size < 1:
        raise ValueError(f"{text!r} is not a memory budget: it must be above 0")
    return MemoryBudget(size_bytes=size)


def default_budget(device_kind: str) -> MemoryBudget:
    """The budget of a device if none is set."""
    if device_kind == "sim":
        return MemoryBudget(size_bytes=SIMULATED_MEMORY_BYTES)
    return MemoryBudget(fraction=_DEFAULT_FRACTION[device_kind])


class Settings(PoolProcess):
    """Serves models on this machine. Each flag is also a variable: YOLOPOOL_WORKER_DATA_DIR."""

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
        description="serve this device in this process: cpu, cpu:0-3, cuda:GPU-<uuid>, "
        "cuda:MIG-<uuid> or sim:N. Without it, supervise one such process for each of --devices",
    )
    devices: str = Field(
        "auto",
        description="the devices to supervise: auto, or a list such as cuda, or cpu,sim:2, or "
        "cpu:2x8 (two workers, each bound to eight cores)",
    )
    insecure: bool = Field(
        False,
        description="listen beyond this machine without TLS: who reaches the ports reads and sends "
        "everything",
    )
    join_dir: Path = Field(
        Path("~/.cache/yolopool/worker/joined"),
        description="folder of that certificate and its key",
    )
    data_dir: Path = Field(
        Path("~/.cache/yolopool/worker"), description="folder of the local pack cache"
    )
    memory_budget: str = Field(
        "",
        description="device memory that models may use: bytes, 4GiB, 500MB, or a fraction of the "
        "device such as 0.8. Empty: 0.8 of a GPU, 0.5 of a host, 8GiB of a simulated device",
    )
    max_hot: int = Field(
        0, ge=0, description="most models on the device at once; 0: as many as fit"
    )
    host_memory: str = Field(
        "0.25",
        description="host memory that may hold weights beside a CUDA device: 32GiB, 0.25, or 0",
    )
    pack_cache: str = Field(
        "32GiB",
        description="most bytes of weights of all assigned versions, and of the local copies of "
        "their packs",
    )
    rewarm_idle_s: float = Field(
        0, ge=0, description="warm a model up again after so many idle seconds; 0: never"
    )
    probe_every_s: float = Field(
        600.0,
        ge=0,
        description="ask each model on the device the picture that is kept with it so often, and "
        "load it again if it answers otherwise; 0: never",
    )
    blind_after: int = Field(
        200,
        ge=0,
        description="ask the picture too when a model that found things found nothing on so many "
        "images in a row; 0: not for that",
    )
    drift_limit: str = Field(
        "512MiB", description="replace the process when it leaked more memory than this; 0: never"
    )
    handover: Path | None = Field(
        None, description="file by which the worker asks for a successor; the supervisor sets it"
    )
    black_box: int = Field(
        0, ge=0, description="file descriptor of the flight record; the supervisor sets it"
    )
    hang_floor_s: float = Field(
        10.0,
        gt=0,
        description="seconds after which a pass counts as hung, if twice its estimate is not more",
    )
    hang_load_s: float = Field(
        120.0,
        gt=0,
        description="seconds after which a load, or the first pass of a version, counts as hung",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="port to listen on; 0: any free one")
    advertise: str = Field("", description="host:port under which control planes reach this worker")
    id: str = Field(
        "",
        max_length=120,
        description="name of the worker; empty: <hostname>-<device>, behind the name of its "
        "certificate if that has another",
    )
    labels: str = Field("", description="labels that placements can match: k=v,k=v")
    skip_warmup: bool = Field(False, description="serve before the warm-up passes on the device")
    compute_threads: int = Field(
        0,
        ge=0,
        description="threads that compute on a CPU device; 0: all cores but one, or both of two",
    )
    intake_threads: int = Field(
        0, ge=0, description="threads that decode images; 0: two, or four on CUDA"
    )
    intake_memory: str = Field(
        "256MiB", description="memory for decoded images that wait for the device"
    )
    io_processes: int = Field(
        0,
        ge=0,
        le=64,
        description="processes that take Infer calls and decode images; 0: the worker does so on "
        "threads. With --port, they listen on the ports after it",
    )
    queue_capacity: int = Field(64, ge=1, description="most requests that wait for the device")
    max_batch: int = Field(
        0, ge=0, le=256, description="most images in a batch; 0: 4 on a CPU, else 16"
    )
    max_image_bytes: int = Field(32 * 1024**2, ge=1, description="most bytes of one encoded image")
    max_raw_bytes: int = Field(
        MAX_RAW_BYTES, ge=1, description="most bytes of one image of raw pixels"
    )
    max_image_pixels: int = Field(100_000_000, ge=1, description="most pixels of one image")
    drain_grace_s: float = Field(
        3.0, ge=0, description="seconds for the last requests when the worker ends"
    )
    sim_faults: str = Field(
        "",
        pattern=r"^(|(crash|hang|sticky|forget|nan)=\d+(,(crash|hang|sticky|forget|nan)=\d+)*)$",
        description="for tests: crash=N,hang=N,sticky=N,forget=N,nan=N makes a simulated device "
        "crash, hang, fail from then on, find nothing until the next load, or answer no number, at "
        "images whose mean is N",
    )
    sim_slowness: float = Field(
        1.0, gt=0, description="passes of a simulated device take so many times longer"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="precision in which models run; fp16 on CUDA only"
    )
    compute_class: str = Field(
        "",
        pattern=r"^[a-z0-9_-]{0,32}$",
        description="for tests: say that the device is of this compute class; empty: its own",
    )
    graphs: str = Field(
        "0",
        description="device memory for captured CUDA graphs, such as 512MiB; 0: none are captured",
    )
    tensorrt: bool = Field(
        False, description="also run packs built for TensorRT, on a CUDA device; experimental"
    )
    sandbox: Literal["auto", "require", "off"] = Field(
        "auto",
        description="confinement of files: auto: the process changes its own folder only and reads "
        "what may_read says, if the host can, and not on CUDA; require: or it does not start",
    )
    may_read: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="folders that the process may read beside libraries and its own, separated by "
        "commas: the packs of a store on this machine. Empty: everything that its user may",
    )
    die_with_parent: bool = Field(False, description="end when the parent process ends")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="lowest level that is logged"
    )
    log_json: bool = Field(True, description="log one JSON object per line, for machines")
    log_file: str = Field("", description="log to this file, rotated by its size; empty: to stderr")

    @field_validator("may_read", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split(value)

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
                raise ValueError(
                    f"{value!r} is a fraction, but of no known total: give bytes, such as 256MiB"
                )
        return value

    @model_validator(mode="after")
    def _ports_are_safe(self) -> "Settings":
        joins = self.join_token_file is not None
        check_exposure((self.host,), joins or self.tls_cert is not None, self.insecure)
        if not (is_loopback(self.host) or joins or self.tls_ca or self.insecure):
            raise ValueError(
                f"{self.host} is reached from other machines, and this worker obeys whoever "
                "reaches it: give it the authority of its control planes (--tls-ca), or say "
                "--insecure"
            )
        return self

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
        """Of the one worker that this process is."""
        return self.id_of(self.device, alone=True)

    def id_of(self, device: str, alone: bool) -> str:
        """The id of the worker of a device; `alone`: there is no other device. Raises OSError and
        InvalidOption for a certificate that can't be read.
        """
        if self.id and alone:
            return self.id
        return f"{self.id or self._id_base()}-{re.sub('[:/]', '-', device)}"

    def _id_base(self) -> str:
        """As the certificate of this process allows, if it has one of the pool."""
        host = socket.gethostname()
        if self.tls_cert is None:
            return host
        own = shown(self.tls_cert)
        names = worker_ids.names_of(own.subject, own.hosts) if own.role == "worker" else ()
        return worker_ids.base(host, names)

    def budget(self) -> MemoryBudget:
        return (
            parse_budget(self.memory_budget)
            if self.memory_budget
            else default_budget(self.device_kind)
        )

    def host_bytes(self, memory_bytes: int) -> int:
        """The bytes of weights that may stay in host memory beside the device."""
        if self.host_memory == "0":
            return 0
        return parse_budget(self.host_memory).resolve(memory_bytes)

    def pack_cache_bytes(self) -> int:
        """The bytes of weights of all versions that may be assigned."""
        return parse_budget(self.pack_cache).resolve(0)

    def intake_bytes(self) -> int:
        """The bytes of one arena; each I/O process has its own."""
        return parse_budget(self.intake_memory).resolve(0)

    def drift_limit_bytes(self) -> int:
        """The bytes of a leak that is tolerated; 0: no limit."""
        return 0 if self.drift_limit == "0" else parse_budget(self.drift_limit).resolve(0)

    def graph_bytes(self) -> int:
        """The bytes of captured graphs; 0 on all devices but CUDA, where none are captured."""
        if self.graphs == "0" or self.device_kind != "cuda":
            return 0
        return parse_budget(self.graphs).resolve(0)

    def batch_limit(self) -> int:
        """The most images in a batch: four on a CPU, where larger ones cost more per image."""
        return self.max_batch or (4 if self.device_kind == "cpu" else 16)

    def arguments(self, **changes: Any) -> list[str]:
        """The command line that gives a child process these settings, with changes.

        It has all settings, since the child inherits variables that this command line overrode;
        but for secrets, which everyone on the host could read there: see `secrets`.
        """
        arguments = []
        for name, value in {**self.model_dump(), **changes}.items():
            flag = name.replace("_", "-")
            if isinstance(value, SecretStr):
                continue
            if isinstance(value, bool):
                arguments.append(f"--{flag}" if value else f"--no-{flag}")
            elif value is not None:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                arguments.append(f"--{flag}={text}")
        return arguments

    def secrets(self) -> dict[str, str]:
        """The variables that give a child process what `arguments` leaves out."""
        return {"YOLOPOOL_WORKER_API_KEY": self.api_key.get_secret_value()}


def parse_labels(text: str) -> dict[str, str]:
    """Reads `zone=a,gpu=l4`. Raises ValueError, which names this form, and for the labels that
    every worker has: they say what the device is, and how far the process is confined.
    """
    labels = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{part!r} is not a label: give k=v,k=v")
        if key.strip() in (COMPUTE_CLASS, SANDBOX):
            raise ValueError(
                f"the worker sets the label {key.strip()} itself: leave it out of --labels"
            )
        labels[key.strip()] = value.strip()
    return labels


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Reads the command line (by default this process's) and the environment."""
    return CliApp.run(Settings, cli_args=arguments)
