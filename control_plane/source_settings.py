"""Settings of what a control plane reads from stores outside: part of `settings`."""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SCHEMES, WEB, parse
from control_plane.types.sources.watch import Watch
from yolopool.errors import YolopoolError
from yolopool.names import check_name

Words = Annotated[tuple[str, ...], NoDecode]
_REPEAT = "; repeat the flag, or separate them by commas"


class SourceSettings(BaseSettings):
    """Flags that begin with --source, --fetch, --watch and --webhook."""

    source_schemes: Words = Field(
        tuple(sorted(SCHEMES)),
        description="schemes of URIs by which models may be registered; none: an empty text"
        + _REPEAT,
    )
    source_hosts: Words = Field(
        (),
        description="hosts, and buckets of S3, that files are read from, with * for any letters; "
        "not given: all" + _REPEAT,
    )
    source_denied_hosts: Words = Field(
        (), description="hosts and buckets that are never read from, with * for any letters"
    )
    source_private_networks: Words = Field(
        (),
        description="networks that are not of the public internet and may be read from by http "
        "and https, as 10.1.0.0/16; default: none" + _REPEAT,
    )
    source_roots: Words = Field(
        (),
        description="folders of this machine, mounts among them, whose files may be registered "
        "and watched by file://; default: none" + _REPEAT,
    )
    source_profiles: Words = Field(
        (),
        description="profiles of ~/.aws that callers may name for s3://; default: none, and "
        "without a profile the environment's credentials are used" + _REPEAT,
    )
    source_netrc: Path | None = Field(
        None, description="file of logins by host, as curl has them in .netrc, shown by https alone"
    )
    fetch_parallel: int = Field(4, ge=1, le=64, description="files that are fetched at once")
    fetch_timeout_s: float = Field(
        3600.0,
        gt=0,
        description="seconds that fetching a file may take, pauses after failures included",
    )
    watch: Words = Field(
        (),
        description="folders or prefixes whose new files become versions of a model, as "
        "MODEL=URI; the same as `yolopool watches add`" + _REPEAT,
    )
    webhook_hosts: Words = Field(
        (),
        description="hosts that receivers of alerts may be on, with * for any letters; not given: "
        "all" + _REPEAT,
    )
    webhook_private_networks: Words = Field(
        (),
        description="networks that are not of the public internet and receivers of alerts may be "
        "in, as 10.1.0.0/16; default: none" + _REPEAT,
    )
    watch_before_serving_s: float = Field(
        0.0,
        ge=0,
        description="seconds that a control plane which starts, and leads, says that it is not "
        "ready, until its watches were looked at and what is new there is imported; 0: it does "
        "not wait",
    )

    @field_validator(
        "source_schemes",
        "source_hosts",
        "source_denied_hosts",
        "source_private_networks",
        "source_roots",
        "source_profiles",
        "watch",
        "webhook_hosts",
        "webhook_private_networks",
        mode="before",
    )
    @classmethod
    def _words(cls, value: object) -> object:
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return value
        single = (text.strip() for part in parts for text in str(part).split(","))
        return tuple(text for text in single if text)

    @field_validator("source_schemes")
    @classmethod
    def _are_schemes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - SCHEMES)
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no scheme: give {', '.join(sorted(SCHEMES))}")
        return value

    @field_validator("source_private_networks", "webhook_private_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text)
        return value

    @field_validator("source_roots")
    @classmethod
    def _are_folders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not text.startswith("/"):
                raise ValueError(f"{text!r} is no whole path of a folder, such as /models")
        return value

    @field_validator("watch")
    @classmethod
    def _are_watches(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            _watch_of(text, 0.0)
        return value

    @model_validator(mode="after")
    def _watches_may_look(self) -> "SourceSettings":
        rules = self.source_rules()
        try:
            for watch in self.watches(0.0):
                rules.check(parse(watch.uri))
        except YolopoolError as error:
            raise ValueError(error.message) from error
        return self

    def watches(self, now_unix_s: float) -> list[Watch]:
        """Those that these settings declare."""
        return [_watch_of(text, now_unix_s) for text in self.watch]

    def webhook_rules(self) -> SourceRules:
        """Where receivers of alerts may be."""
        return SourceRules(
            WEB,
            tuple(host.lower() for host in self.webhook_hosts),
            private_networks=tuple(ip_network(text) for text in self.webhook_private_networks),
        )

    def source_rules(self) -> SourceRules:
        """A root counts by its name and by where its links lead."""
        return SourceRules(
            frozenset(self.source_schemes),
            tuple(host.lower() for host in self.source_hosts),
            tuple(host.lower() for host in self.source_denied_hosts),
            tuple(ip_network(text) for text in self.source_private_networks),
            tuple(dict.fromkeys(p for r in self.source_roots for p in (r, os.path.realpath(r)))),
            frozenset(self.source_profiles),
        )


def _watch_of(text: str, now_unix_s: float) -> Watch:
    """Reads MODEL=URI. The watch is named after its model."""
    model, _, uri = text.partition("=")
    try:
        name = check_name(model).replace("/", ".")
        folder = parse(uri.rstrip("/") + "/")
    except YolopoolError as error:
        raise ValueError(f"{model[:60]!r} is no watch: {error.message}") from error
    return Watch(name, folder.text, model, by="settings", created_unix_s=now_unix_s)
