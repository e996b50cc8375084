"""What a version was registered with, as a frozen record for callers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from yolopool.v1 import model_pb2


@dataclass(frozen=True, slots=True)
class Registered:
    """What the registration gave beside the file. `architecture_yaml` and `signature` are in
    answers of `model` alone, `by`, who registered it, in answers to callers who may operate.
    """

    class_names: tuple[str, ...] = ()
    renamed_classes: Mapping[int, str] = field(default_factory=dict)
    architecture_sha256: str = ""
    architecture_yaml: str = ""
    signature: str = ""
    by: str = ""


def registered_of(message: model_pb2.Registered) -> Registered:
    return Registered(
        tuple(message.class_names),
        dict(message.renamed_classes),
        message.architecture_sha256,
        message.architecture_yaml,
        message.signature,
        message.by,
    )
