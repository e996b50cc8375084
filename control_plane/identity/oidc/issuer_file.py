"""The issuers of OpenID Connect whose tokens are taken, and what their claims give: a TOML file."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from control_plane.types.access.api_key import Role, checked_grants
from yolopool.errors import YolopoolError
from yolopool.names import check_name
from yolopool.transport import is_loopback

Value = TypeVar("Value")
Text = Annotated[str, Field(min_length=1, max_length=500)]
DAY_S = 86_400.0


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Grant(_Table):
    """What a value of the role claim gives. `models` and `tenant` go before the claims for them."""

    when: Text
    role: Literal["detect", "operate", "admin", "worker"]
    models: tuple[str, ...] | None = None
    tenant: str = ""

    @field_validator("models")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return checked(lambda: checked_grants(value)) if value is not None else None

    @field_validator("tenant")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return checked(lambda: check_name(value)) if value else value

    @property
    def gives(self) -> Role:
        return Role(self.role)


class Issuer(_Table):
    """`url` is what its tokens have as `iss`. `clients`: values of `azp`, of which a token has one;
    none: any. A claim inside another is named with dots: realm_access.roles.
    """

    url: Text
    audience: Text
    clients: tuple[Text, ...] = ()
    ca: Path | None = None
    role_claim: Text = "roles"
    models_claim: str = ""
    tenant_claim: str = ""
    clock_skew_s: float = Field(60.0, ge=0, le=600)
    # How long its keys are trusted while it can't be reached.
    keys_kept_s: float = Field(DAY_S, ge=60, le=30 * DAY_S)
    grant: tuple[Grant, ...] = Field(min_length=1)

    @field_validator("url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        check_url(value)
        return value

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class _File(_Table):
    issuer: tuple[Issuer, ...] = Field(min_length=1, max_length=16)


def read(path: Path) -> tuple[Issuer, ...]:
    """Raises OSError if the file can't be read, ValueError for what it should not hold. The `ca` of
    an issuer is relative to the file.
    """
    text = path.read_text(encoding="utf-8")
    try:
        issuers = _File.model_validate(tomllib.loads(text)).issuer
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where}: {first['msg']}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    if len({issuer.url for issuer in issuers}) < len(issuers):
        raise ValueError(f"{path} has an issuer twice: join their tables")
    return tuple(
        issuer.model_copy(update={"ca": path.parent / issuer.ca}) if issuer.ca else issuer
        for issuer in issuers
    )


def check_url(url: str) -> None:
    """Raises ValueError for an address that may not be asked for keys."""
    parts = urlsplit(url)
    port = parts.port  # or ValueError
    plain_here = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or port == 0 or not (parts.scheme == "https" or plain_here):
        raise ValueError(f"{url[:200]!r} is no https:// address (http:// on loopback alone)")
    if parts.username or parts.password or parts.query or parts.fragment or not url.isprintable():
        raise ValueError(f"{parts.hostname}: an issuer's address has a path at most")


def is_plain(url: str) -> bool:
    """Whether an address is asked without TLS."""
    return urlsplit(url).scheme == "http"


def checked(check: Callable[[], Value]) -> Value:
    """Says what is wrong in the way of pydantic."""
    try:
        return check()
    except YolopoolError as error:
        raise ValueError(error.message) from error
