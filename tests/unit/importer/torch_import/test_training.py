"""What a checkpoint says about its training: short texts, whatever an untrusted file keeps."""

from typing import Any

import pytest

from importer.torch_import.training import told


def test_arguments_metrics_and_date() -> None:
    content = {
        "train_args": {"epochs": 100, "lr0": 0.01, "data": "bolts.yaml", "plots": True},
        "train_metrics": {"metrics/mAP50(B)": 0.98765432, "fitness": 0.5},
        "date": "2026-11-30T12:00:00",
        "version": "8.4.190",
        "model": object(),
    }
    assert told(content) == {
        "epochs": "100", "lr0": "0.01", "data": "bolts.yaml", "metrics/mAP50(B)": "0.987654",
        "fitness": "0.5", "date": "2026-11-30T12:00:00", "version": "8.4.190",
    }  # fmt: skip
    assert told({"train_args": {"imgsz": [384, 640]}}) == {"imgsz": "384, 640"}


@pytest.mark.parametrize(
    "content",
    [
        {}, {"train_args": None}, {"train_args": [1]}, {"train_args": {"data": object()}},
        {"train_metrics": {7: 1.0}}, {"date": b"x"},
    ],
)  # fmt: skip
def test_what_is_no_text_is_left_out(content: Any) -> None:
    assert told(content) == {}


def test_texts_are_short_and_printable() -> None:
    found = told({"train_args": {"data": "a\n\x1b[31m" + "x" * 999, "model": "\ud800b"}})
    assert len(found["data"]) <= 200
    assert found["data"].isprintable()
    found["model"].encode()
    many = told({"train_metrics": {f"m{number}": 1.0 for number in range(999)}})
    assert len(many) <= 32
