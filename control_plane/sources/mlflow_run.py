"""models:/ and runs:/ of MLflow (extra mlflow): where the file lies, and what is known of its run.

The library says where; the file itself is read as any other, by the same rules. The tracking server
is the control plane's own (MLFLOW_TRACKING_URI): its address needs no permission.
"""

import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote, urlsplit

from control_plane.sources.http_file import Web
from control_plane.sources.run_record import MODEL_SUFFIXES, run_text, the_model
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import HTTP, HTTPS, MODELS, RUNS, WEB, SourceUri, parse
from yolopool.errors import (
    ExtraMissing,
    SourceDenied,
    SourceInvalid,
    SourceNotFound,
    SourceRefused,
    SourceUnavailable,
    YolopoolError,
)

RECORD = "mlflow.json"
_PROXIED = "mlflow-artifacts"
_MAX_ENTRIES, _MAX_DEPTH = 500, 4
_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class Located:
    """`uri`: where the file is. `web`: how to ask the tracking server for it; None: as usual."""

    uri: SourceUri
    metadata: Mapping[str, str]
    web: Web | None = None


def locate(uri: SourceUri, rules: SourceRules, web: Web) -> Located:
    """Blocks. Raises ExtraMissing, SourceRefused, SourceInvalid, SourceNotFound, SourceDenied and
    SourceUnavailable.
    """
    client = _client()
    try:
        return _located(client, uri, rules, web)
    except YolopoolError:
        raise
    except Exception as error:
        raise _failure(error, uri) from error


def _located(client: Any, uri: SourceUri, rules: SourceRules, web: Web) -> Located:
    place, run_id, facts = _of_model(client, uri) if uri.scheme == MODELS else ("", "", {})
    if uri.scheme == RUNS:
        run_id, _, path = uri.path.partition("/")
        place = "/".join(filter(None, (client.get_run(run_id).info.artifact_uri, path)))
    metadata = {RECORD: _record(client, run_id, facts)}
    tracker = _tracker()
    if urlsplit(place).scheme == _PROXIED:
        if urlsplit(place).netloc not in ("", urlsplit(tracker).netloc):
            raise SourceRefused(f"{uri.text} lies on another server than the pool's MLflow")
        own = _own_web(web, tracker)
        file = parse(_proxied(tracker, _file_of(place, uri)))
        return Located(file, metadata, own)
    rules.check(parse(place))
    return Located(parse(_file_of(place, uri)), metadata)


def _of_model(client: Any, uri: SourceUri) -> tuple[str, str, dict[str, str]]:
    """Where a version of a registered model lies, its run, and how it is called."""
    name, at, alias = uri.path.partition("@")
    if at:
        version = client.get_model_version_by_alias(name, alias)
    else:
        name, _, word = uri.path.rpartition("/")
        if not name:
            raise SourceInvalid(
                "give models:/name/version, models:/name/stage or models:/name@alias"
            )
        version = _version(client, name, word)
    place = client.get_model_version_download_uri(name, version.version)
    if place.startswith(f"{RUNS}:/"):
        run_id, _, path = place.removeprefix(f"{RUNS}:/").partition("/")
        place = f"{client.get_run(run_id).info.artifact_uri}/{path}"
    if place.startswith(f"{MODELS}:/"):
        place = client.get_logged_model(place.removeprefix(f"{MODELS}:/")).artifact_location
    return place, version.run_id or "", {"model": name, "version": str(version.version)}


def _version(client: Any, name: str, word: str) -> Any:
    """By its number, latest, or its stage."""
    if word.isdecimal():
        return client.get_model_version(name, word)
    if "'" in name:
        raise SourceInvalid("a model of MLflow has no quotation mark in its name")
    found = [
        one
        for one in client.search_model_versions(f"name='{name}'")
        if word == "latest" or (one.current_stage or "").lower() == word.lower()
    ]
    if not found:
        raise SourceNotFound(f"MLflow has no version of {name} in the stage {word}: check both")
    return max(found, key=lambda one: int(one.version))


def _record(client: Any, run_id: str, facts: Mapping[str, str]) -> str:
    if not run_id:
        return run_text(facts)
    run = client.get_run(run_id)
    named = {"run_id": run_id, "run_name": run.info.run_name or "", **facts}
    own = {key: tag for key, tag in run.data.tags.items() if not key.startswith("mlflow.")}
    return run_text(named, metrics=run.data.metrics, params=run.data.params, tags=own)


def _file_of(place: str, uri: SourceUri) -> str:
    """The model file at a place, which may be a folder."""
    if place.lower().endswith(MODEL_SUFFIXES):
        return place
    if urlsplit(place).scheme in WEB:
        # The library would ask whatever server a run names, with the tracking server's login.
        raise SourceInvalid(f"{uri.text} lies on a web server: name the path of the model's file")
    parent = place.rstrip("/").rpartition("/")[0]
    return f"{parent}/{the_model(_walk(place, parent), uri.text)}"


def _walk(place: str, parent: str) -> Iterator[str]:
    """Paths of the files below a place, from its parent on."""
    from mlflow.artifacts import list_artifacts

    folders, seen = [(place, 0)], 0
    while folders:
        folder, depth = folders.pop()
        for entry in list_artifacts(artifact_uri=folder):
            seen += 1
            path = f"{folder.rstrip('/')}/{entry.path.rpartition('/')[2]}"
            if seen > _MAX_ENTRIES or depth >= _MAX_DEPTH:
                raise SourceInvalid("there are too many files: name the path of the model's file")
            if entry.is_dir:
                folders.append((path, depth + 1))
            else:
                yield path.removeprefix(f"{parent}/")


def _proxied(tracker: str, place: str) -> str:
    path = urlsplit(place).path.lstrip("/")
    return f"{tracker.rstrip('/')}/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"


def _own_web(web: Web, tracker: str) -> Web:
    """For the tracking server alone, wherever it is."""
    from mlflow.utils.credentials import get_default_host_creds

    host = (urlsplit(tracker).hostname or "").lower()
    own = SourceRules(frozenset((HTTP, HTTPS)), (host,), private_networks=_EVERYWHERE)
    known: Any = get_default_host_creds(tracker)  # type: ignore[no-untyped-call]
    login = ""
    if known.token:
        login = f"Bearer {known.token}"
    elif known.username and known.password:
        pair = f"{known.username}:{known.password}".encode()
        login = f"Basic {base64.b64encode(pair).decode()}"
    return Web(own, {host: login} if login else {}, web.context, also_plain=True)


def _tracker() -> str:
    from mlflow import get_tracking_uri

    return str(get_tracking_uri())


def _client() -> Any:
    # It would tell its makers of each use.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ExtraMissing(
            "models:/ and runs:/ need MLflow on the control planes: pip install 'yolopool[mlflow]'"
        ) from error
    return MlflowClient()


def _failure(error: Exception, uri: SourceUri) -> YolopoolError:
    """The error for callers. What the library says is not quoted: it may name hosts and keys."""
    code = getattr(error, "error_code", "")
    if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        return SourceNotFound(f"MLflow does not have {uri.text}: check the name")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return SourceDenied(f"MLflow does not let the control plane read {uri.text}")
    return SourceUnavailable(
        f"MLflow does not tell where {uri.text} is ({code or type(error).__name__})"
    )
