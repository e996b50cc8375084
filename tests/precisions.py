"""What this machine's devices compute in, asked of the libraries that compute."""


def torch_computes_bf16(device_kind: str = "cpu") -> bool:
    """Whether torch has kernels for bf16 on this kind of device here."""
    import torch

    if device_kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def openvino_computes_bf16() -> bool:
    """Whether OpenVINO has kernels for it here: oneDNN may be limited to less than it says."""
    import openvino

    from worker.hardware import compute_class

    capable = "BF16" in list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return capable and compute_class.of_onednn(compute_class.of_host()) in ("bf16", "amx")
