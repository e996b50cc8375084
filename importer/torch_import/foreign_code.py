"""What to say of a checkpoint that names code which is not the model library's. Pure.

Such code is never run. Whose it is decides what the sender can do.
"""

from collections.abc import Sequence

from importer.refusal import UNSAFE, UNSUPPORTED, ImportRefused

_EXPORT = "export it to ONNX where it was trained, and register the .onnx file"
# Packages whose layers models are built of, beside the library's own.
_OF_LAYERS = frozenset(
    {"ultralytics", "ultralytics_thop", "timm", "torchvision", "mmcv", "mmdet", "mmengine"}
    | {"mmyolo", "super_gradients", "yolov5", "yolov6", "yolox", "einops", "DCNv3", "mamba_ssm"}
)
# Top packages of the repositories of YOLOv5, YOLOv7 and YOLOv9.
_OF_REPOSITORIES = frozenset({"models", "utils"})
# What torch keeps in a file if something was not undone before it was saved, and how to undo it.
_TO_UNDO = {
    "torch.nn.utils.prune.": (
        "its layers are pruned by masks that are still in place: call "
        "torch.nn.utils.prune.remove(layer, 'weight') for each of them, and save it again"
    ),
    "torch.nn.utils.parametrize.": (
        "its weights are parametrised: call torch.nn.utils.parametrize.remove_parametrizations for "
        "each layer, and save it again"
    ),
    "torch.nn.utils.": (
        "its layers have hooks of torch.nn.utils, such as weight_norm: remove them as torch "
        "documents, and save it again"
    ),
    "torch.ao.": f"it is quantised: save it before that, or {_EXPORT}",
    "torch.quantization.": f"it is quantised: save it before that, or {_EXPORT}",
    "modelopt.": f"it is quantised: save it before that, or {_EXPORT}",
}


def refusal(names: Sequence[str]) -> ImportRefused:
    """The refusal of a file that names these functions and classes."""
    shown = ", ".join(sorted(names))[:200]
    for prefix, remedy in _TO_UNDO.items():
        if names and all(name.startswith(prefix) for name in names):
            return ImportRefused(UNSUPPORTED, f"the file needs {shown}: {remedy}")
    roots = {name.partition(".")[0] for name in names}
    if roots and roots <= _OF_REPOSITORIES:
        return ImportRefused(
            UNSUPPORTED,
            f"the file needs {shown}, of the repository of YOLOv5, YOLOv7 or YOLOv9, whose code is "
            "not run here: export it there (YOLOv5: export.py --include onnx; YOLOv7: export.py "
            "--grid), and register the .onnx file, with --layout objectness where the import asks "
            "for a layout",
        )
    if roots and roots <= _OF_LAYERS | _OF_REPOSITORIES and not any(map(_is_a_call, names)):
        return ImportRefused(
            UNSUPPORTED,
            f"the file needs {shown}, which the model library of this release does not have; other "
            f"code is not run here: {_EXPORT}",
        )
    return ImportRefused(
        UNSAFE,
        f"the file names code that no model of the library needs ({shown}) and was not run: do not "
        f"trust it if it is not yours; if these are layers of your own, {_EXPORT}",
    )


def _is_a_call(name: str) -> bool:
    """A function of the model library: its models are made of classes, and some of its functions
    install packages or load files.
    """
    root, _, rest = name.partition(".")
    return root == "ultralytics" and rest.rpartition(".")[2][:1].islower()
