"""What a head says of itself has bounds, wherever its architecture said it."""

from types import SimpleNamespace
from typing import Any

import pytest

from importer.refusal import ImportRefused
from importer.torch_import import architecture, tasks

POSE = next(task for task in tasks.TASKS if task.name == "pose")


@pytest.mark.parametrize("shape", [(501, 3), (0, 3), (17, 4), (17,), (17.0, 3), "ab"])
def test_a_shape_of_keypoints_has_bounds(shape: Any) -> None:
    with pytest.raises(ImportRefused, match="kpt_shape"):
        tasks.attributes(POSE, SimpleNamespace(kpt_shape=shape))


@pytest.mark.parametrize("name", ["Pose", "Pose26"])
@pytest.mark.parametrize("shape", [[501, 3], [17, 4], 17, [16_000, 16_000]])
def test_one_among_the_arguments_is_looked_at_before_anything_is_built(
    shape: Any, name: str
) -> None:
    layers = {"nc": 1, "backbone": [[-1, 1, "Conv", [16, 3, 2]]]}
    fields = layers | {"head": [[[0], 1, name, ["nc", shape]]]}
    with pytest.raises(ImportRefused, match="kpt_shape"):
        architecture.checked(fields)
    good = layers | {"head": [[[0], 1, name, ["nc", [17, 3]]]]}
    assert architecture.checked(good)["head"][0][3] == ["nc", [17, 3]]
