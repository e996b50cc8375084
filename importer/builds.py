"""What a pack can be built for: which backend, in which precision. Pure."""

from importer.refusal import CALIBRATION, INVALID, UNSUPPORTED, ImportRefused

_PRECISIONS = {
    # Workers compute torch packs in the precision of their replica, so packs are fp32 alone.
    "torch": ("fp32",),
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "tensorrt": ("fp32",),
}


def resolved(
    of_onnx: bool, backend: str, precision: str, calibration: str, calibration_sha256: str
) -> dict[str, str]:
    """Backend and precision of a pack; by default those of its file. Raises ImportRefused."""
    backend, precision = backend or ("onnx" if of_onnx else "torch"), precision or "fp32"
    if backend not in _PRECISIONS or (of_onnx and backend == "torch"):
        raise ImportRefused(
            UNSUPPORTED,
            f"{backend[:40]} does not run {'an ONNX file' if of_onnx else 'this file'}: build it "
            "for onnx or openvino",
        )
    if precision not in _PRECISIONS[backend]:
        raise ImportRefused(
            UNSUPPORTED,
            f"{backend} packs are not built in {precision[:40]} but in "
            f"{' or '.join(_PRECISIONS[backend])}: choose another precision, or one of the "
            "backends onnx and openvino for int8",
        )
    if precision == "int8" and not calibration:
        raise ImportRefused(
            CALIBRATION,
            "int8 needs the range of numbers in each layer: add --calibration FOLDER with some "
            "hundred images like those the model will be sent",
        )
    if calibration and precision != "int8":
        raise ImportRefused(
            INVALID, f"{precision} is not calibrated: give --calibration with --precision int8 only"
        )
    return {"backend": backend, "precision": precision}
