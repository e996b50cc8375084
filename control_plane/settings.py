"""Settings of a control plane process: one frozen object, read once at start.

The only reader of the environment (YOLOPOOL_CONTROL_PLANE_*) and of the command line, which wins.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, CliApp, NoDecode, SettingsConfigDict

from yolopool.errors import InvalidModelReference
from yolopool.names import parse_ref


class Settings(BaseSettings):
    """Flags of `python -m control_plane`; each is also YOLOPOOL_CONTROL_PLANE_UPPER_CASE."""

    model_config = SettingsConfigDict(
        env_prefix="YOLOPOOL_CONTROL_PLANE_",
        frozen=True,
        cli_prog_name="python -m control_plane",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    data_dir: Path = Field(
        Path("~/.local/share/yolopool"),
        description="folder of the artifact store and of the local copy of the registry",
    )
    host: str = Field("127.0.0.1", description="address of the gRPC port")
    port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0: any free one")
    advertise: str = Field(
        "",
        description="host:port of the gRPC port as other control planes reach it; empty: as it is "
        "bound, by this machine's name where it is bound to all addresses",
    )
    http_host: str = Field("127.0.0.1", description="address of the HTTP port")
    http_port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0: any free one")
    redis: str = Field(
        "",
        description="unix:///path, redis://, rediss:// or redis+sentinel:// URL; empty: state is "
        "kept in memory and ends with the process",
    )
    redis_password: SecretStr = Field(SecretStr(""), description="where the URL has none")
    heartbeat_interval_s: float = Field(1.0, gt=0, description="that workers are told to keep")
    lease_s: float = Field(3.0, gt=0, description="of a worker, from its last heartbeat")
    reconciler_lease_s: float = Field(3.0, gt=0, description="of the one that decides")
    default_deadline_s: float = Field(30.0, gt=0, description="of a Detect that has none")
    no_worker_grace_s: float = Field(
        10.0, ge=0, description="how long a Detect waits for a worker when none is connected"
    )
    quarantine_s: float = Field(
        600.0, ge=0, description="that an image is refused which ended two workers; 0: never"
    )
    drain_grace_s: float = Field(
        3.0, ge=0, description="for requests under way when the process is told to stop"
    )
    load_timeout_s: float = Field(120.0, gt=0, description="of one load on one worker")
    release_timeout_s: float = Field(60.0, gt=0, description="of one release on one worker")
    max_artifact_bytes: int = Field(4 * 1024**3, ge=1, description="of one uploaded file")
    max_image_bytes: int = Field(32 * 1024**2, ge=1, description="of one image")
    load: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="models that are to be loaded and pinned from the start on, as name or "
        "name@version; repeat it, or part them by commas",
    )
    die_with_parent: bool = Field(False, description="end when the parent process ends")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = Field(True, description="one JSON object a line, for machines")

    @field_validator("data_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("load", mode="before")
    @classmethod
    def _parted(cls, value: object) -> object:
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return value
        words = (word.strip() for part in parts for word in str(part).split(","))
        return tuple(word for word in words if word)

    @field_validator("load")
    @classmethod
    def _are_references(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for reference in value:
            try:
                parse_ref(reference)
            except InvalidModelReference as error:
                raise ValueError(error.message) from error
        return value

    @model_validator(mode="after")
    def _lease_outlives_a_heartbeat(self) -> "Settings":
        if self.lease_s < 2 * self.heartbeat_interval_s:
            raise ValueError(
                f"lease_s {self.lease_s:g} is less than two heartbeats of "
                f"{self.heartbeat_interval_s:g} s: one late message would lose a worker"
            )
        return self


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Reads the command line (by default this process's) and the environment."""
    return CliApp.run(Settings, cli_args=arguments)
