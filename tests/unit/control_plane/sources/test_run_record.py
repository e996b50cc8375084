import json

import pytest

from control_plane.sources.run_record import MAX_BYTES, run_text, the_model
from yolopool.errors import SourceInvalid, SourceNotFound


def test_what_a_run_has_is_kept_as_json() -> None:
    text = run_text({"run_id": "r"}, metrics={"map": 0.5}, params={"epochs": "3", "odd": object})
    kept = json.loads(text)
    assert kept["run_id"] == "r"
    assert kept["metrics"] == {"map": 0.5}
    assert kept["params"]["epochs"] == "3"
    assert isinstance(kept["params"]["odd"], str)


def test_more_than_fits_is_cut_and_said() -> None:
    text = run_text(
        {"run_id": "r"}, metrics={"map": 0.5}, params={f"p{i}": "x" * 90 for i in range(999)}
    )
    kept = json.loads(text)
    assert len(json.dumps(kept)) <= MAX_BYTES + 100
    assert kept["metrics"] == {"map": 0.5}
    assert 0 < len(kept["params"]) < 999
    assert kept["cut"]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["MLmodel", "data/model.pt"], "data/model.pt"),
        (["weights/best.pt", "weights/last.pt", "best.onnx"], "weights/best.pt"),
        (["a.ONNX"], "a.ONNX"),
    ],
)
def test_the_model_of_a_folder_is_found(paths: list[str], found: str) -> None:
    assert the_model(paths, "runs:/r") == found


def test_none_and_several_are_told_apart() -> None:
    with pytest.raises(SourceNotFound):
        the_model(["MLmodel"], "runs:/r")
    with pytest.raises(SourceInvalid, match=r"a\.pt, b\.pt"):
        the_model(["b.pt", "a.pt"], "runs:/r")
