"""What this machine's devices compute in, asked of the libraries that compute."""


def torch_computes_bf16(device_kind: str = "cpu") -> bool:
    """Whether torch has kernels for bf16 on this kind of device here."""
    import torch

    if device_kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def openvino_computes_bf16() -> bool:
    import openvino

    return "BF16" in list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
