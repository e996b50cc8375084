"""The one way to files outside the pool: opens the file of a URI, and lists a folder of one."""

import base64
import netrc
import ssl
from dataclasses import replace
from pathlib import Path

from control_plane.sources import mlflow_run
from control_plane.sources.http_file import HttpFile, Logins, Web
from control_plane.sources.local_file import LocalFile, list_folder
from control_plane.sources.object_file import ObjectStores
from control_plane.sources.remote_file import Found, RemoteFile
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import FILE, MLFLOW, S3, WANDB, WEB, SourceUri, parse
from control_plane.sources.wandb_artifact import WandbFile
from control_plane.types.sources.source import Source
from yolopool.errors import SourceInvalid


class Sources:
    """Safe to share between threads. The methods block, and raise what `remote_file` says,
    SourceInvalid, SourceRefused and ExtraMissing.

    `scratch`: a folder for what a library fetches by itself, at most `max_bytes` of it.
    """

    def __init__(self, rules: SourceRules, logins: Logins, scratch: Path, max_bytes: int) -> None:
        self.rules = rules
        self._web = Web(rules, logins, ssl.create_default_context())
        self._objects = ObjectStores()
        self._scratch = scratch
        self._max_bytes = max_bytes

    def check(self, source: Source) -> SourceUri:
        """What can be said of a source at once: does not block."""
        uri = parse(source.uri)
        self.rules.check(uri, source.profile)
        return uri

    def check_folder(self, source: Source) -> SourceUri:
        """As `check`, of a folder or prefix to list."""
        uri = parse(source.uri.rstrip("/") + "/")
        if uri.scheme not in (FILE, S3):
            raise SourceInvalid(
                f"{uri.scheme} can't be listed: watch a folder (file:///models/) or a prefix of S3 "
                "(s3://bucket/models/)"
            )
        self.rules.check(uri, source.profile)
        return uri

    def open(self, source: Source) -> RemoteFile:
        """The file as it is now. Its connection may be open: close it."""
        uri = self.check(source)
        if uri.scheme in MLFLOW:
            at = mlflow_run.locate(uri, self.rules, self._web)
            if at.web is None:
                self.rules.check(at.uri)
            opened = self._open(at.uri, source, at.web)
            opened.facts = replace(opened.facts, metadata=at.metadata)
            return opened
        if uri.scheme == WANDB:
            return WandbFile(uri, self._scratch, self._max_bytes)
        return self._open(uri, source, None)

    def _open(self, uri: SourceUri, source: Source, web: Web | None) -> RemoteFile:
        if uri.scheme in WEB:
            return HttpFile(uri, web or self._web, needs_length=not source.sha256)
        if uri.scheme == S3:
            return self._objects.open(uri, source.profile)
        return LocalFile(uri, self.rules)

    def list(self, source: Source) -> list[Found]:
        """The files that lie in a folder itself."""
        uri = self.check_folder(source)
        if uri.scheme == S3:
            return self._objects.list(uri, source.profile)
        return list_folder(uri, self.rules)


def read_logins(path: Path | None) -> dict[str, str]:
    """The headers of a file of logins, as curl has them in ~/.netrc, by host. Raises OSError and
    ValueError.
    """
    if path is None:
        return {}
    try:
        known = netrc.netrc(str(path)).hosts
    except netrc.NetrcParseError as error:
        raise ValueError(f"{path} can't be read: line {error.lineno} is not of a .netrc") from None
    known.pop("default", None)  # of no host, so that it would be shown to any
    pairs = {host: f"{login}:{password}".encode() for host, (login, _, password) in known.items()}
    return {
        host.lower(): f"Basic {base64.b64encode(pair).decode()}" for host, pair in pairs.items()
    }
