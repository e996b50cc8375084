"""Does the steps of a migration, one model after another."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from yolopool.client.client import Client
from yolopool.client.model_records import ModelVersion
from yolopool.errors import ModelImportFailed, NotFound, YolopoolError
from yolopool.migration.steps import (
    Load,
    ModelPlan,
    Register,
    SetBatching,
    SetPriority,
    SetResidency,
    Step,
    command,
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a model in the pool; `error` empty: all its steps were done."""

    model: str
    versions: tuple[str, ...]
    error: str = ""


def apply(client: Client, plans: tuple[ModelPlan, ...], say: Say) -> Iterator[Applied]:
    """Does each model's steps in order. A model whose step fails is left as it is then, and the
    next one begun. A file that is a version of its model already is not registered again.
    """
    for plan in plans:
        if not plan.steps:
            continue
        versions: list[str] = []
        try:
            for step in plan.steps:
                say(command(step))
                done = _do(client, step)
                if isinstance(step, Register):
                    versions.append(done.name)
        except (YolopoolError, OSError) as error:
            yield Applied(plan.model, tuple(versions), _said(error))
        else:
            yield Applied(plan.model, tuple(versions))


def _said(error: YolopoolError | OSError) -> str:
    return f"{error.reason}: {error}" if isinstance(error, YolopoolError) else str(error)


def _do(client: Client, step: Step) -> ModelVersion:
    match step:
        case Register():
            return _registered(client, step)
        case SetBatching(model, kind, batching):
            return client.set_batching(model, kind, batching)
        case SetPriority(model, priority):
            now = client.model(model).versions[0].placement
            return client.set_placement(model, replace(now, priority=priority))
        case SetResidency(model, mode, cpu_fallback):
            return client.set_residency(model, mode, cpu_fallback=cpu_fallback)  # type: ignore[arg-type] # a word of the plan's
        case Load(model, replicas, pin):
            return client.load(model, replicas=replicas, pin=pin, wait=False)


def _registered(client: Client, step: Register) -> ModelVersion:
    """The version of this file: the one there is, or a new one. Raises the error of its import."""
    with step.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        known = client.model(step.model).versions
    except NotFound:
        known = ()
    for version in known:
        if version.artifact == digest and version.state == "READY":
            return version
    made = client.register(
        step.model, step.path, image_size=step.image_size, class_names=step.class_names
    )
    if made.state == "FAILED":
        raise ModelImportFailed(f"{made.name}: {made.reason}: {made.message}")
    return made
