"""Settings of a control plane process: one frozen object, read once at start.

Only this module reads the environment (YOLOPOOL_CONTROL_PLANE_*) and the command line, which wins.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import CliApp, NoDecode, SettingsConfigDict

from control_plane.log_settings import LogSettings
from control_plane.source_settings import SourceSettings
from yolopool.errors import InvalidModelReference
from yolopool.names import parse_ref
from yolopool.server.exhaustion import allowed_files
from yolopool.server.limits.grpc_limits import GrpcLimits
from yolopool.signing.signers import Signers, read_keys
from yolopool.tls.certificates import Certificates, certificates_of
from yolopool.transport import check_exposure
from yolopool.vocabulary import MAX_RAW_BYTES, MAX_REJOIN_S

# How long a caller keeps one connection, and so one of several control planes behind a balancer.
_CONNECTION_AGE_S = 300.0
# Connections of a gRPC port get at most this part of the files that the process may open.
_OF_FILES = 0.25


class Settings(LogSettings, SourceSettings):
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
        description="folder for the artifact store and the local copy of the registry",
    )
    host: str = Field("127.0.0.1", description="address of the gRPC port")
    port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0: any free one")
    advertise: str = Field(
        "",
        description="host:port at which other control planes reach the gRPC port; empty: the bound "
        "address, or this machine's name where that is all addresses",
    )
    http_host: str = Field("127.0.0.1", description="address of the HTTP port")
    http_port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0: any free one")
    http_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="origins of web pages that may call the HTTP port, as https://host, or * for "
        "all; repeat the flag, or separate them by commas",
    )
    http_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names by which callers may call the HTTP port, beside addresses and this "
        "machine's own, or * for all; not given: on a port that others reach, all; repeat the "
        "flag, or separate them by commas",
    )
    http_max_connections: int = Field(
        4096,
        ge=1,
        description="connections of the HTTP port; at most half of the files that the process may "
        "open",
    )
    http_max_connections_an_address: int = Field(
        2048,
        ge=1,
        description="connections of the HTTP port that one address may have; behind a proxy all "
        "callers have the proxy's",
    )
    http_max_header_bytes: int = Field(
        32 * 1024, ge=1024, description="largest header of an HTTP request, in bytes"
    )
    max_request_memory_bytes: int = Field(
        512 * 1024**2,
        ge=1,
        description="bytes of all requests in progress, by gRPC and HTTP; in memory each takes up "
        "to five times its bytes",
    )
    max_memory_bytes: int = Field(
        0,
        ge=0,
        description="memory of the process beyond which it cuts off gRPC calls whose message is "
        "still on its way; 0: 8 times max_request_memory_bytes, and 1 GiB",
    )
    max_streams: int = Field(
        1024, ge=1, description="streams of frames that are open at once, of all callers"
    )
    grpc_max_connections: int = Field(
        4096,
        ge=1,
        description="connections of each gRPC port; at most a quarter of the files that the "
        "process may open",
    )
    grpc_max_calls: int = Field(
        512,
        ge=1,
        description="calls and streams at a time of one gRPC connection; a client lets more wait",
    )
    grpc_handshake_timeout_s: float = Field(
        10.0, gt=0, description="seconds in which a gRPC connection must be opened, TLS included"
    )
    grpc_idle_s: float = Field(
        300.0, gt=0, description="seconds that a gRPC connection without calls is kept"
    )
    grpc_message_timeout_s: float = Field(
        60.0,
        gt=0,
        description="seconds in which the message of a gRPC call must arrive, and its answer be "
        "taken",
    )
    http_header_timeout_s: float = Field(
        10.0, gt=0, description="seconds in which the header of an HTTP request must arrive"
    )
    http_stall_timeout_s: float = Field(
        20.0,
        gt=0,
        description="seconds after which an HTTP caller is cut off that sends its body, or reads "
        "its answer, slower than http_min_bytes_per_s",
    )
    http_min_bytes_per_s: int = Field(
        1000, ge=0, description="bytes per second that an HTTP caller must send or read"
    )
    http_keep_alive_s: float = Field(
        75.0, ge=0, description="seconds that an idle HTTP connection is kept"
    )
    redis: str = Field(
        "",
        description="URL of the store: unix:///path, redis://, rediss:// or redis+sentinel://; "
        "empty: state is kept in memory and is lost when the process ends",
    )
    strict: bool = Field(
        False,
        description="refuse a Redis that may drop keys: one whose maxmemory-policy is not "
        "noeviction, or that does not say",
    )
    redis_user: str = Field("", description="user of Redis, if the URL has none")
    redis_password: SecretStr = Field(
        SecretStr(""), description="password of Redis, if the URL has none"
    )
    redis_password_file: Path | None = Field(
        None, description="file of that password, instead of the password"
    )
    redis_sentinel_password: SecretStr = Field(
        SecretStr(""), description="password of the sentinels, which is one of their own"
    )
    redis_ca: Path | None = Field(
        None,
        description="certificates of the authority that Redis' is of, PEM, for rediss://; default: "
        "those that this machine trusts",
    )
    redis_cert: Path | None = Field(
        None, description="certificate that Redis is shown, PEM, with redis_key"
    )
    redis_key: Path | None = Field(None, description="key of that certificate, PEM")
    insecure: bool = Field(
        False,
        description="listen beyond this machine without TLS: who reaches the ports reads and sends "
        "everything",
    )
    tls_ca: Path | None = Field(
        None, description="certificates of the authority that the pool's processes trust, PEM"
    )
    tls_cert: Path | None = Field(
        None, description="certificate of this process, PEM; with tls_key its ports speak TLS"
    )
    tls_key: Path | None = Field(None, description="key of the certificate, PEM")
    tls_ca_key: Path | None = Field(
        None,
        description="key of the authority in tls_ca, PEM: this control plane gives certificates to "
        "workers that join with a token",
    )
    joined_certificate_s: float = Field(
        86_400.0, ge=1, description="seconds that such a certificate lasts; it is renewed in time"
    )
    pool_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="another gRPC port, for workers, importers and control planes that show a "
        "certificate of tls_ca; 0: any free one; default: they use the gRPC port, with keys",
    )
    auth: Literal["off", "keys"] = Field(
        "off", description="keys: every call needs an API key; off: everyone may do everything"
    )
    oidc: Path | None = Field(
        None,
        description="TOML file of the OpenID Connect issuers whose tokens are taken beside keys, "
        "and of what their claims give; with auth=keys",
    )
    admin_key_file: Path | None = Field(
        None,
        description="file of an admin's API key, made if there is none; default: admin.key in the "
        "data directory",
    )
    pool_key: SecretStr = Field(
        SecretStr(""),
        description="API key of the role control-plane, for calls to other control planes",
    )
    trusted_signers: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="public keys of minisign (.pub files, or folders of them) whose signatures of "
        "models count; repeat the flag, or separate them by commas",
    )
    require_signatures: bool = Field(
        False, description="take and serve only models that a trusted signer signed"
    )
    open_metrics: bool = Field(
        False, description="with keys: /metrics needs none; it names models and workers"
    )
    triton_metrics: bool = Field(
        False,
        description="/metrics has the names of a Triton server too (nv_inference_*, nv_gpu_*), for "
        "dashboards that read them",
    )
    open_docs: bool = Field(
        False,
        description="with keys: /docs and /openapi.json need none: browsers show them",
    )
    open_reflection: bool = Field(
        False, description="with keys: gRPC reflection, which tells the services, needs none"
    )
    heartbeat_interval_s: float = Field(
        1.0, gt=0, description="seconds between two heartbeats of a worker"
    )
    lease_s: float = Field(
        3.0, gt=0, description="seconds after its last heartbeat until a worker is lost"
    )
    reconciler_lease_s: float = Field(
        3.0, gt=0, description="seconds that the leader's lease lasts"
    )
    default_deadline_s: float = Field(
        30.0, gt=0, description="seconds, for a Detect without a deadline"
    )
    no_worker_grace_s: float = Field(
        10.0, ge=0, description="seconds that a Detect waits for a worker when none is connected"
    )
    quarantine_s: float = Field(
        600.0,
        ge=0,
        description="seconds that an image which crashed two workers is refused; 0: never",
    )
    drain_grace_s: float = Field(
        3.0, ge=0, description="seconds that open requests may take when the process stops"
    )
    load_timeout_s: float = Field(
        120.0, gt=0, description="seconds that a load on a worker may take"
    )
    release_timeout_s: float = Field(
        60.0, gt=0, description="seconds that a release on a worker may take"
    )
    max_artifact_bytes: int = Field(
        4 * 1024**3, ge=1, description="largest file to upload, in bytes"
    )
    sweep_grace_s: float = Field(
        86_400.0,
        ge=60,
        description="seconds after its last use that a file of the artifact store is kept which no "
        "version uses",
    )
    max_image_bytes: int = Field(
        32 * 1024**2, ge=1, description="largest encoded image of a request, in bytes"
    )
    max_raw_bytes: int = Field(
        MAX_RAW_BYTES, ge=1, description="largest image of raw pixels of a request, in bytes"
    )
    load: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="models to load and pin at start, as name or name@version; repeat the flag, or "
        "separate them by commas",
    )
    camera_model: str = Field(
        "",
        description="model that serves camera systems which name none, as name or name@version; "
        "empty: the only one that is ready",
    )
    die_with_parent: bool = Field(False, description="stop when the parent process ends")

    @field_validator("data_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator(
        "load", "http_cors_origins", "http_allowed_hosts", "trusted_signers", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return value
        single = (text.strip() for part in parts for text in str(part).split(","))
        return tuple(text for text in single if text)

    @field_validator("camera_model")
    @classmethod
    def _is_a_reference(cls, value: str) -> str:
        return cls._are_references((value,))[0] if value else value

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
    def _ports_are_safe(self) -> "Settings":
        check_exposure((self.host, self.http_host), self.tls_cert is not None, self.insecure)
        return self

    @model_validator(mode="after")
    def _someone_signs(self) -> "Settings":
        if self.require_signatures and not self.trusted_signers:
            raise ValueError("require_signatures needs trusted_signers: name their public keys")
        return self

    @model_validator(mode="after")
    def _callers_are_asked(self) -> "Settings":
        if self.oidc is not None and self.auth == "off":
            raise ValueError("oidc says whose tokens are taken: callers are asked with auth=keys")
        return self

    @model_validator(mode="after")
    def _who_joins_is_known(self) -> "Settings":
        if self.tls_ca_key is not None and (
            None in (self.tls_ca, self.tls_cert, self.pool_port) or self.auth == "off"
        ):
            raise ValueError(
                "tls_ca_key is for processes that join with a token: that needs tls_ca, tls_cert, "
                "a pool_port, and auth=keys"
            )
        return self

    @model_validator(mode="after")
    def _lease_outlives_a_heartbeat(self) -> "Settings":
        if self.lease_s < 2 * self.heartbeat_interval_s:
            raise ValueError(
                f"lease_s {self.lease_s:g} is less than two heartbeat intervals of "
                f"{self.heartbeat_interval_s:g} s: one late heartbeat would lose a worker"
            )
        return self

    @property
    def gather_s(self) -> float:
        """How long a new leader waits for the workers on record to call, seconds."""
        return self.lease_s + MAX_REJOIN_S

    def signers(self) -> Signers:
        """Raises OSError and ValueError for keys that can't be used."""
        return Signers(read_keys(self.trusted_signers), self.require_signatures)

    def grpc_limits(self) -> GrpcLimits:
        """Of both gRPC ports."""
        files = int(allowed_files() * _OF_FILES)
        memory = self.max_memory_bytes or 8 * self.max_request_memory_bytes + 1024**3
        return GrpcLimits(
            max_calls=self.grpc_max_calls,
            max_connections=max(1, min(self.grpc_max_connections, files)),
            max_memory_bytes=memory,
            handshake_timeout_s=self.grpc_handshake_timeout_s,
            idle_s=self.grpc_idle_s,
            message_timeout_s=self.grpc_message_timeout_s,
            connection_age_s=_CONNECTION_AGE_S,
        )

    def certificates(self) -> Certificates | None:
        """Raises OSError and ValueError for files that can't be used."""
        return certificates_of(self.tls_ca, self.tls_cert, self.tls_key)


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Reads the command line (by default this process's) and the environment."""
    return CliApp.run(Settings, cli_args=arguments)
