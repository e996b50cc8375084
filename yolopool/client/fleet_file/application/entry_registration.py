"""Registers a version of a fleet file: its file is uploaded where the pool does not have it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from yolopool.client import calls, requests, uploads
from yolopool.client.calls import Call
from yolopool.client.fleet_file import present
from yolopool.client.fleet_file.application.step_calls import place_of
from yolopool.client.fleet_file.declared import Settings
from yolopool.client.fleet_file.planning import Entry
from yolopool.client.fleet_file.present import PresentVersion
from yolopool.client.fleet_file.resolving import Resolver
from yolopool.client.fleet_file.text.wrong import stored_digest
from yolopool.client.requests import RegisterOptions
from yolopool.client.sources import fetched
from yolopool.client.training import run_folder
from yolopool.client.uploads import Artifact, FileWork, Flow
from yolopool.v1 import model_pb2


def registered(entry: Entry, resolver: Resolver) -> Flow[PresentVersion]:
    """The version as it is then: waiting for its import, or READY where the pool had its pack."""
    version, request = entry.version, _request(entry)
    if fetched.is_uri(version.artifact):
        request.uri, request.profile = version.artifact, version.profile
    elif not stored_digest(version.artifact):
        path = resolver.path(version.artifact)
        run: run_folder.TrainingRun = yield FileWork(partial(run_folder.find, path))
        there: bool = yield FileWork(run.file.is_file)
        if there or not version.sha256:
            yield from _sent(entry, run, request)
    if version.signature:
        signature = resolver.path(version.signature)
        request.signature = yield FileWork(partial(uploads.signature_text, signature))
    request.signature = version.signature_text or request.signature
    answer: PresentVersion = yield Call(
        "model",
        "RegisterModel",
        request,
        calls.CHANGE_TIMEOUT_S,
        lambda reply: present.version_of(reply.version),
    )
    return answer


def _sent(
    entry: Entry, run: run_folder.TrainingRun, request: model_pb2.RegisterModelRequest
) -> Flow[None]:
    """Uploads the file, and adds what its training and its signer left beside it."""
    size: int = yield FileWork(lambda: run.file.stat().st_size)
    yield from uploads.store(Artifact(run.file, entry.digest, size))
    request.source_name = entry.version.source_name or run.file.name
    for name, text in run.metadata.items():
        if name not in entry.version.metadata:
            request.metadata[name] = text
    request.signature = yield FileWork(partial(uploads.signature_of, run.file, None))


def _request(entry: Entry) -> model_pb2.RegisterModelRequest:
    version, kept = entry.version, entry.version.residency
    options: Any = {
        **_settings(version.settings),
        "class_names": version.class_names or version.renamed_classes,
        "metadata": version.metadata,
        "placement": place_of(version.placement),
        "labels": version.labels,
        "number": version.version,
    }
    given: RegisterOptions = options
    named = version.source_name or Path(version.artifact).name
    if stored_digest(version.artifact):
        named = version.source_name
    request = requests.register(version.name, entry.digest, named, entry.architecture, given)
    # Of the same words as the call that sets it later.
    residency = requests.residency("", kept.mode, kept.idle_release_s, kept.cpu_fallback)  # type: ignore[arg-type] # checked by the file's reader
    request.residency.CopyFrom(residency.residency)
    return request


def _settings(settings: Settings) -> Mapping[str, Any]:
    size: Any = settings.image_size
    if settings.image_height:
        size = (settings.image_height, settings.image_width)
    return {
        "image_size": size,
        "image_sizes": settings.image_sizes,
        "confidence": settings.confidence,
        "iou": settings.iou,
        "max_detections": settings.max_detections,
        "shape_policy": settings.shape_policy,
        "head_mode": settings.head_mode,
        "output_layout": settings.output_layout,
    }
