"""What a head says of itself has bounds, wherever its architecture said it."""

from types import SimpleNamespace
from typing import Any

import pytest

from importer import heads
from importer.refusal import ImportRefused

POSE = next(task for task in heads.TASKS if task.name == "pose")


@pytest.mark.parametrize("shape", [(501, 3), (0, 3), (17, 4), (17,), (17.0, 3), "ab"])
def test_a_shape_of_keypoints_has_bounds(shape: Any) -> None:
    with pytest.raises(ImportRefused, match="kpt_shape"):
        heads.attributes(POSE, SimpleNamespace(kpt_shape=shape))
