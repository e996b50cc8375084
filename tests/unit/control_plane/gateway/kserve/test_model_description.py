"""What clients of the protocol read of a model is what the registry says of it."""

import json
from typing import Any

import pytest

from control_plane.gateway.kserve import model_description as description
from control_plane.gateway.kserve.result_tensors import outputs_of
from yolopool.errors import ModelImportFailed, ModelNotReady
from yolopool.v1 import model_pb2, types_pb2

READY, FAILED = model_pb2.VERSION_STATE_READY, model_pb2.VERSION_STATE_FAILED
HOT, WARM = types_pb2.REPLICA_STATE_HOT, types_pb2.REPLICA_STATE_WARM
ASSIGNED, RELEASING = types_pb2.REPLICA_STATE_ASSIGNED, types_pb2.REPLICA_STATE_RELEASING


def version(number: int, *replicas: Any, state: Any = READY, **more: Any) -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(
        version=types_pb2.VersionKey(model="shapes", version=number),
        state=state,
        task=more.pop("task", "detect"),
        class_names=["a", "ü"],
        settings=types_pb2.VersionSettings(
            image_size=640, confidence=0.3, iou=0.7, max_detections=300
        ),
        replicas=[model_pb2.ReplicaPlace(replica=types_pb2.Replica(state=one)) for one in replicas],
        **more,
    )


def model(*versions: model_pb2.ModelVersion, default: int = 0) -> model_pb2.Model:
    return model_pb2.Model(name="shapes", default_version=default, versions=versions)


def test_the_default_is_meant_or_the_one_that_was_named() -> None:
    uploaded = version(3, state=model_pb2.VERSION_STATE_UPLOADED)
    of_all = model(uploaded, version(2), version(1), default=2)
    assert description.meant(of_all).version.version == 2
    assert description.meant(model(version(1), default=2)).version.version == 1
    with pytest.raises(ModelNotReady):
        description.meant(model(uploaded, default=2))
    failed = version(1, state=FAILED, reason="ARTIFACT_INVALID", message="no model")
    with pytest.raises(ModelImportFailed, match="ARTIFACT_INVALID: no model"):
        description.meant(model(failed))


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify"])
def test_metadata_and_configuration_agree(task: str) -> None:
    one = version(2, task=task)
    both = model(one, version(1, state=FAILED), default=2)
    metadata = description.metadata(both, one)
    config = description.configuration(both, one)
    assert (metadata.name, list(metadata.versions)) == ("shapes", ["2"])
    assert list(config.version_policy.specific.versions) == [2]
    assert [tensor.name for tensor in metadata.outputs] == list(outputs_of(task))
    assert config.max_batch_size > 1
    assert all(tensor.optional for tensor in config.input)
    said = [(one.name, list(one.shape)) for one in (*metadata.inputs, *metadata.outputs)]
    assert said == [
        *((one.name, [-1, *one.dims]) for one in config.input),
        *((one.name, [-1, *one.dims]) for one in config.output),
    ]
    assert json.loads(config.parameters["class_names"].string_value) == ["a", "ü"]
    assert config.parameters["confidence"].string_value == "0.3"


def test_the_state_of_each_version() -> None:
    versions = [
        version(9, state=model_pb2.VERSION_STATE_IMPORTING),
        version(8, state=FAILED, reason="ARTIFACT_INVALID", message="no"),
        version(7, HOT),
        version(6, WARM),
        version(5, ASSIGNED),
        version(4, RELEASING),
        version(3, wanted_replicas=1, waiting_reason="NO_WORKER: none"),
        version(2),
        version(1, ASSIGNED, HOT),
    ]
    found = description.index([model(*versions, default=7)], only_ready=False).models
    assert {int(one.version): one.state for one in found} == {
        9: "UNAVAILABLE", 8: "UNAVAILABLE", 7: "READY", 6: "READY", 5: "LOADING",
        4: "UNLOADING", 3: "LOADING", 2: "UNAVAILABLE", 1: "READY",
    }  # fmt: skip
    assert all(one.reason for one in found if one.state == "UNAVAILABLE")
    assert next(one.reason for one in found if one.version == "3") == "NO_WORKER: none"
    ready = description.index([model(*versions, default=7)], only_ready=True).models
    assert [one.version for one in ready] == ["7", "6", "1"]
