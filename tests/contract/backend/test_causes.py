"""What is told of a runtime's error is its cause."""

import numpy as np
import onnxruntime
import pytest

from tests import onnx_graphs
from worker.backends.onnx.model import cause_of


def test_the_cause_that_onnx_runtime_names_last_is_kept() -> None:
    model = onnx_graphs.answering({"output": np.zeros((1, 7, 1))})
    model.ir_version = 1_000
    with pytest.raises(Exception, match="IR version") as caught:
        onnxruntime.InferenceSession(model.SerializeToString())
    cause = cause_of(caught.value)
    assert "Unsupported model IR version: 1000" in cause
    assert len(cause) <= 303


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("short", "short"),
        ("first\nsecond", "first"),
        ("", "ValueError"),
        ("x" * 301, "..." + "x" * 300),
    ],
)
def test_one_line_is_told(text: str, cause: str) -> None:
    assert cause_of(ValueError(text)) == cause
