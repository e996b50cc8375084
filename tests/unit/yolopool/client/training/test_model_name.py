"""Which name people expect of a model file."""

from pathlib import PurePath

import pytest

from yolopool.client.training.model_name import chosen, valid
from yolopool.names import parse_ref


@pytest.mark.parametrize(
    ("path", "folders", "arguments", "name"),
    [
        ("bolts.pt", [], {}, "bolts"),
        ("yolov8n.pt", [], {}, "yolov8n"),
        ("yolo11n-seg.pt", ["weights"], {"name": "other"}, "yolo11n-seg"),
        ("Bolts (1).PT", [], {}, "bolts-1"),
        ("best.pt", ["weights", "train3", "detect", "runs", "bolts"], {}, "bolts"),
        ("best.pt", ["weights", "bolts-v2", "detect"], {}, "bolts-v2"),
        ("last.pt", ["weights", "train"], {"name": "nuts", "data": "b.yaml"}, "nuts"),
        ("best.pt", ["weights", "train"], {"name": "train", "data": "coco8.yaml"}, "coco8"),
        ("best.pt", [], {"name": "exp12", "data": "/home/me/bolts/data.yaml"}, "bolts"),
        ("best.pt", [], {"data": "C:\\data\\nuts\\data.yaml"}, "nuts"),
        ("best (2).pt", ["Downloads"], {}, None),
        ("best_v2.pt", ["tmp"], {}, None),
        ("epoch90.pt", ["content"], {"name": "train2", "data": "/datasets/data.yaml"}, None),
        ("weights.onnx", ["model", "gears"], {}, "gears"),
        ("\N{SNOWMAN}.pt", ["gears"], {}, "gears"),
    ],
)
def test_names(path: str, folders: list[str], arguments: dict[str, str], name: str | None) -> None:
    found = chosen(PurePath(path), folders, arguments)
    assert (found.name if found else None) == name
    if name is not None:
        assert str(parse_ref(name)) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [("Bolts & Nuts", "bolts-nuts"), ("._a_.", "a"), ("", ""), ("--", ""), ("x" * 99, "x" * 63)],
)
def test_any_text_becomes_a_valid_name(text: str, name: str) -> None:
    assert valid(text) == name
