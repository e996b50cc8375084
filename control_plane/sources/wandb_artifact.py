"""wandb-artifact://entity/project/name:alias of Weights & Biases (extra wandb).

The library fetches the file, with its own login (WANDB_API_KEY) and server (WANDB_BASE_URL), into a
folder; a download that broke begins anew. An artifact that only refers to files elsewhere is
refused: register those by their own URI.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from control_plane.sources.remote_file import PART_BYTES, Facts
from control_plane.sources.run_record import run_text, the_model
from control_plane.sources.source_uri import SourceUri
from yolopool.errors import (
    ArtifactTooLarge,
    ExtraMissing,
    SourceDenied,
    SourceInvalid,
    SourceNotFound,
    SourceUnavailable,
    YolopoolError,
)

RECORD = "wandb.json"


class WandbFile:
    """Fetched at once, into `folder`; blocks until it is there."""

    def __init__(self, uri: SourceUri, folder: Path, max_bytes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix=".incoming-", dir=folder, ignore_cleanup_errors=True
        )
        try:
            artifact, path, self._place = _fetched(uri, Path(self._folder.name), max_bytes)
            name = path.rpartition("/")[2]
            self.facts = Facts(
                name, self._place.stat().st_size, metadata={RECORD: _record(artifact)}
            )
        except YolopoolError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise _failure(error, uri) from error

    def read(self, offset: int) -> tuple[int, Iterator[bytes]]:
        return 0, self._parts()

    def _parts(self) -> Iterator[bytes]:
        with self._place.open("rb") as file:
            while part := file.read(PART_BYTES):
                yield part

    def close(self) -> None:
        self._folder.cleanup()


def _fetched(uri: SourceUri, folder: Path, max_bytes: int) -> tuple[Any, str, Path]:
    entity, project, name, *inner = uri.path.split("/")
    artifact = _api().artifact(f"{entity}/{project}/{name}")
    entries = artifact.manifest.entries
    path = "/".join(inner)
    if path not in entries:
        below = [one for one in entries if not path or one.startswith(f"{path}/")]
        path = the_model(below, uri.text)
    entry = artifact.get_entry(path)
    if entry.ref is not None:
        raise SourceInvalid(f"{uri.text} refers to a file elsewhere: register that by its own URI")
    if (entry.size or 0) > max_bytes:
        raise ArtifactTooLarge(
            f"{uri.text} has {entry.size} bytes, and at most {max_bytes} are taken: raise "
            "--max-artifact-bytes"
        )
    # Before it is fetched: the library writes wherever the name leads.
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise SourceInvalid(f"{uri.text} names its file outside of its artifact")
    return artifact, path, Path(entry.download(root=str(folder)))


def _record(artifact: Any) -> str:
    run = artifact.logged_by()
    facts = {"artifact": artifact.qualified_name, "version": artifact.version}
    if run is None:
        return run_text(facts, metadata=artifact.metadata)
    facts |= {"run_id": run.id, "run_name": run.name or ""}
    metrics = {key: value for key, value in dict(run.summary).items() if not key.startswith("_")}
    params = {key: value for key, value in run.config.items() if not key.startswith("_")}
    return run_text(facts, metrics=metrics, params=params, metadata=artifact.metadata)


def _api() -> Any:
    # It would tell its makers of its errors.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except ImportError as error:
        raise ExtraMissing(
            "wandb-artifact:// needs wandb on the control planes: pip install 'yolopool[wandb]'"
        ) from error
    return wandb.Api(timeout=30)


def _failure(error: Exception, uri: SourceUri) -> YolopoolError:
    """The error for callers. What the library says is not quoted: it may name hosts and keys."""
    kind, text = type(error).__name__, str(error).lower()
    if isinstance(error, KeyError) or "not found" in text or "could not find" in text:
        return SourceNotFound(f"Weights & Biases does not have {uri.text}: check the name")
    if kind in ("AuthenticationError", "UsageError") or "permission" in text:
        return SourceDenied(
            f"Weights & Biases does not let the control plane read {uri.text}: check its login"
        )
    return SourceUnavailable(f"Weights & Biases does not give {uri.text} ({kind})")
