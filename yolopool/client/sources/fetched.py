"""Versions whose file the pool fetches itself."""

import time
from typing import Unpack

from yolopool.client import requests, uploads
from yolopool.client.calls import Call
from yolopool.client.model_records import ModelVersion, version_of
from yolopool.client.requests import RegisterOptions
from yolopool.client.uploads import UPLOAD_TIMEOUT_S, FileWork, Flow, Progress

SCHEMES = ("file", "http", "https", "s3", "models", "runs", "wandb-artifact")


def is_uri(text: str) -> bool:
    """Whether a text is the URI of a file that the pool fetches, and no file of this machine."""
    return text.partition(":")[0].lower() in SCHEMES and ":/" in text


def register_uri(
    name: str,
    uri: str,
    *,
    sha256: str = "",
    profile: str = "",
    wait: bool = True,
    progress: Progress | None = None,
    timeout_s: float = UPLOAD_TIMEOUT_S,
    **options: Unpack[RegisterOptions],
) -> Flow[ModelVersion]:
    """Makes the next version of `name` of a file that the pool fetches: https://, http://, s3://,
    file:///path on the control plane's machine, models:/name/version and runs:/id/path of MLflow,
    wandb-artifact://entity/project/name:alias. The URI has no user, password or token in it.

    `sha256` is what the file must hash to. `profile`, with s3://, names credentials that the
    control plane has. The options are those of `register`. With wait, returns when the import is
    READY or FAILED (see `state`, `reason`); the version is UPLOADED while its file is fetched.
    """
    requests.refuse_unknown("register_uri", options, RegisterOptions)
    until = time.monotonic() + timeout_s
    architecture, signature = options.get("architecture"), options.get("signature")
    text = uploads.architecture_text(architecture) if architecture is not None else ""
    request = requests.register(name, sha256, "", text, options)
    request.uri, request.profile = uri, profile
    if signature is not None:
        request.signature = yield FileWork(lambda: uploads.signature_text(signature))
    version: ModelVersion = yield Call(
        "model",
        "RegisterModel",
        request,
        timeout_s,
        lambda reply: version_of(reply.version),
    )
    return (yield from uploads.imported(version, wait, progress, until))
