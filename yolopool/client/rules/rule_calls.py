"""The calls about gates, about how many versions and bytes are kept, and about deletion."""

import tempfile
import zipfile
from functools import partial
from pathlib import Path

from yolopool.client.calls import READ_TIMEOUT_S, Call
from yolopool.client.model_records import names_of
from yolopool.client.rules.rule_records import ModelRule, rule_of, rules_of
from yolopool.client.uploads import UPLOAD_TIMEOUT_S, FileWork, Flow, Progress, upload
from yolopool.errors import InvalidOption
from yolopool.v1 import model_pb2, rules_pb2
from yolopool.vocabulary import IMAGE_SUFFIXES, LABEL_SUFFIXES

# A fixed time in the archive, so that the same files are the same upload.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def set_gate(
    model: str,
    data: str | Path,
    *,
    min_map50_95: float = 0.0,
    min_map50: float = 0.0,
    progress: Progress | None = None,
    timeout_s: float = UPLOAD_TIMEOUT_S,
) -> Flow[ModelRule]:
    """Asks new versions of a model to reach a mean average precision on labelled images before
    they take over. `data`: a zip or a folder of images, with a .txt for each or a COCO json.
    """
    digest = yield from upload_labelled(data, progress=progress, timeout_s=timeout_s)
    rule: ModelRule = yield order_gate(
        model, digest, min_map50_95=min_map50_95, min_map50=min_map50
    )
    return rule


def upload_labelled(
    data: str | Path, *, progress: Progress | None = None, timeout_s: float = UPLOAD_TIMEOUT_S
) -> Flow[str]:
    """Stores the labelled images of a zip or a folder; returns the digest of the zip."""
    path = Path(data)
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        if path.is_dir():
            archive = Path(folder) / "gate.zip"
            yield FileWork(partial(write_labelled_archive, path, archive))
            path = archive
        artifact = yield from upload(path, progress=progress, timeout_s=timeout_s)
    return artifact.sha256


def order_gate(
    model: str, digest: str, *, min_map50_95: float = 0.0, min_map50: float = 0.0
) -> Call[ModelRule]:
    """As `set_gate`, of labelled images that the pool has."""
    gate = rules_pb2.Gate(data=digest, min_map50_95=min_map50_95, min_map50=min_map50)
    request = rules_pb2.SetGateRequest(model=model, gate=gate)
    return Call("rules", "SetGate", request, READ_TIMEOUT_S, lambda reply: rule_of(reply.rule))


def clear_gate(model: str) -> Call[ModelRule]:
    """Ends the gate of a model."""
    request = rules_pb2.SetGateRequest(model=model)
    return Call("rules", "SetGate", request, READ_TIMEOUT_S, lambda reply: rule_of(reply.rule))


def set_store_rule(
    pattern: str, *, keep_versions: int | None = None, store_bytes: int | None = None
) -> Call[ModelRule]:
    """Sets how many of the newest versions are kept of each model whose name matches a pattern,
    such as team-a/*, and how many bytes the files of all of them may take. 0: all, and no limit;
    None: as it is.
    """
    request = rules_pb2.SetStoreRuleRequest(
        pattern=pattern, keep_versions=keep_versions, store_bytes=store_bytes
    )
    return Call("rules", "SetStoreRule", request, READ_TIMEOUT_S, lambda reply: rule_of(reply.rule))


def rules() -> Call[tuple[ModelRule, ...]]:
    """All that is set for models by their names, in order of the patterns."""
    request = rules_pb2.ListRulesRequest()
    return Call("rules", "ListRules", request, READ_TIMEOUT_S, lambda reply: rules_of(reply.rules))


def delete(model: str, *, force: bool = False) -> Call[tuple[str, ...]]:
    """Deletes a model, or one version of it; returns what was deleted as name@version.

    Raises ModelReferenced while an alias, a schedule or a pin needs it; with `force` only for an
    alias.
    """
    request = model_pb2.DeleteModelRequest(model=model, force=force)
    return Call(
        "model",
        "DeleteModel",
        request,
        READ_TIMEOUT_S,
        lambda reply: names_of(reply.deleted),
    )


def labelled_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images and the files of labels of a folder, and of the folders in it."""
    files = [one for one in sorted(folder.rglob("*")) if one.is_file()]
    images = [one for one in files if one.suffix.lower() in IMAGE_SUFFIXES]
    return images, [one for one in files if one.suffix.lower() in LABEL_SUFFIXES]


def write_labelled_archive(folder: Path, path: Path) -> None:
    """Writes the images and labels of a folder, and of the folders in it, to a zip at `path`.

    Raises InvalidOption if there are none.
    """
    images, labels = labelled_files(folder)
    if not images or not labels:
        raise InvalidOption(
            f"{folder} has {len(images)} images and {len(labels)} files of labels: give a folder "
            "with a .txt for each image, or a COCO json"
        )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for one in (*images, *labels):
            name = one.relative_to(folder).as_posix()
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), one.read_bytes())
