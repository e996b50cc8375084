"""What workers and importers are told of the pool that they belong to: where its control planes
are, and by which certificate or key they let this process in.
"""

import socket
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from yolopool.tls.certificates import Certificates, TlsFiles, certificates_of
from yolopool.tls.joining import Joining


class PoolProcess(BaseSettings):
    """The part of its settings that every process has which calls control planes."""

    tls_ca: Path | None = Field(
        None, description="certificates of the authority that the pool's processes trust, PEM"
    )
    tls_cert: Path | None = Field(
        None, description="certificate of this process, PEM; with tls_key its ports speak TLS"
    )
    tls_key: Path | None = Field(None, description="key of the certificate, PEM")
    join_token_file: Path | None = Field(
        None,
        description="file of a join token ('yolopool certs join-token'), with which this process "
        "gets a certificate and renews it: then without tls_ca, tls_cert and tls_key",
    )
    join_at: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="host:port at which control planes take callers, where the join token is "
        "shown, separated by commas; empty: control_planes",
    )
    join_name: str = Field(
        "", description="name in the certificate, if the join token has none; empty: the host's"
    )
    join_dir: Path = Field(
        Path("~/.cache/yolopool/joined"), description="folder of that certificate and its key"
    )
    api_key: SecretStr = Field(
        SecretStr(""), description="API key of the role worker, for a pool that asks who calls"
    )
    control_planes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:50051",), description="host:port of all control planes, separated by commas"
    )

    @field_validator("control_planes", "join_at", mode="before")
    @classmethod
    def _split_addresses(cls, value: Any) -> Any:
        return split(value)

    @field_validator("join_dir")
    @classmethod
    def _expand_join_dir(cls, value: Path) -> Path:
        return value.expanduser()

    def certificates(self) -> Certificates | None:
        """Raises OSError and ValueError for files that can't be used."""
        return certificates_of(self.tls_ca, self.tls_cert, self.tls_key)

    def joining(self) -> Joining | None:
        """How this process gets its certificate, if by a join token."""
        if self.join_token_file is None:
            return None
        name = self.join_name or socket.gethostname()
        return Joining(
            self.join_dir, self.join_token_file, name, self.join_at or self.control_planes
        )

    def with_files(self, files: TlsFiles) -> Self:
        """These settings, with the certificate that this process got."""
        own = {"tls_ca": files.authority, "tls_cert": files.certificate, "tls_key": files.key}
        return self.model_copy(update=own)


def split(value: Any) -> Any:
    """Reads a list whose parts are separated by commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value
