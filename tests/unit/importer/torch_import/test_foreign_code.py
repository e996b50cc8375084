"""Whose code a file names decides what its sender is told."""

import pytest

from importer.torch_import.foreign_code import refusal


@pytest.mark.parametrize(
    ("names", "reason", "words"),
    [
        (["ultralytics.nn.modules.block.C3k2_Mine"], "ARTIFACT_UNSUPPORTED", "export it to ONNX"),
        (["ultralytics.nn.extra.Mine", "timm.layers.Mlp"], "ARTIFACT_UNSUPPORTED", "timm"),
        (["models.yolo.Model", "utils.loss.Loss"], "ARTIFACT_UNSUPPORTED", "--include onnx"),
        (["models.common.Conv"], "ARTIFACT_UNSUPPORTED", "--layout objectness"),
        (["torch.nn.utils.prune.L1Unstructured"], "ARTIFACT_UNSUPPORTED", "prune.remove"),
        (["torch.nn.utils.parametrize.X"], "ARTIFACT_UNSUPPORTED", "remove_parametrizations"),
        (["torch.nn.utils.weight_norm.WeightNorm"], "ARTIFACT_UNSUPPORTED", "hooks"),
        (["torch.ao.quantization.observer.MinMaxObserver"], "ARTIFACT_UNSUPPORTED", "quantised"),
        (["ultralytics.utils.checks.check_requirements"], "ARTIFACT_UNSAFE", "do not trust it"),
        (["ultralytics.nn.tasks.load_checkpoint", "timm.layers.Mlp"], "ARTIFACT_UNSAFE", "not run"),
        (["posix.system"], "ARTIFACT_UNSAFE", "do not trust it"),
        (["__main__.Mine"], "ARTIFACT_UNSAFE", "export it to ONNX"),
        (["some_yolo.nn.tasks.Model"], "ARTIFACT_UNSAFE", "export it to ONNX"),
        # One strange name among known ones is what counts.
        (["models.yolo.Model", "os.system"], "ARTIFACT_UNSAFE", "os.system"),
        (["torch.nn.utils.prune.X", "builtins.eval"], "ARTIFACT_UNSAFE", "builtins.eval"),
        ([], "ARTIFACT_UNSAFE", "was not run"),
    ],
)
def test_each_kind_has_its_way_out(names: list[str], reason: str, words: str) -> None:
    found = refusal(names)
    assert found.reason == reason
    assert words in found.message
