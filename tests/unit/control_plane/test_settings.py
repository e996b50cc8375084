"""The command line of a control plane."""

import pytest
from pydantic import ValidationError

from control_plane.settings import read_settings


def test_the_model_for_cameras_is_a_reference() -> None:
    assert read_settings([]).camera_model == ""
    assert read_settings(["--camera-model", "team/cars@3"]).camera_model == "team/cars@3"


@pytest.mark.parametrize("name", ["Cars", "..", "a/b/c", "cars@0"])
def test_a_wrong_one_is_refused_at_the_start(name: str) -> None:
    with pytest.raises((ValidationError, SystemExit), match=r"model reference|2"):
        read_settings(["--camera-model", name])
