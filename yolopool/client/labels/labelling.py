"""Client methods that label versions and find them by what is known of them."""

from collections.abc import Mapping, Sequence

from yolopool.client import calls, model_records
from yolopool.client.calls import Call
from yolopool.labels import check_label_name, check_labels, parse_selector
from yolopool.v1 import model_pb2


def models(
    prefix: str = "",
    *,
    labels: str = "",
    task: str = "",
    classes: Sequence[str] = (),
    artifact: str = "",
    dataset: str = "",
    timeout_s: float = calls.READ_TIMEOUT_S,
) -> Call[tuple[model_records.Model, ...]]:
    """All models whose name begins with `prefix`, sorted by name, with the versions that meet every
    filter that is given.

    `labels` is a selector: "line=7,site!=berlin,gpu,!trial". `task` is detect, segment, classify,
    pose or obb. A version has to have all `classes`. `artifact` is the beginning of the SHA-256 of
    its file or pack, `dataset` what its training says that the data was, such as "coco8.yaml".
    """
    parse_selector(labels)
    request = model_pb2.ListModelsRequest(
        name_prefix=prefix,
        label_selector=labels,
        task=task,
        class_names=classes,
        artifact=artifact,
        dataset=dataset,
    )
    return Call("model", "ListModels", request, timeout_s, model_records.models_of)


def set_labels(
    model: str, labels: Mapping[str, str], remove: Sequence[str] = ()
) -> Call[model_records.ModelVersion]:
    """Sets labels of a version, and takes those of the names in `remove` away; others stay."""
    request = model_pb2.SetLabelsRequest(
        model=model, labels=check_labels(labels), remove=[*map(check_label_name, remove)]
    )
    return Call(
        "model",
        "SetLabels",
        request,
        calls.READ_TIMEOUT_S,
        lambda reply: model_records.version_of(reply.version),
    )
