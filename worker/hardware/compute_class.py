"""Compute classes: what a device multiplies with, by which answers in reduced precision differ.

Two devices of one class run the same kernels. Pure but for `of_host`, which reads the host.
"""

import os
from collections.abc import Collection, Mapping

from worker.hardware.host import Host

# Of x86, in the order in which oneDNN prefers them, with the flags that each needs.
_FLAGS: Mapping[str, frozenset[str]] = {
    "sse": frozenset(),
    "avx2": frozenset({"avx2"}),
    "avx2-vnni": frozenset({"avx2", "avx_vnni"}),
    "avx512": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    "vnni": frozenset({"avx512f", "avx512_vnni"}),
    "bf16": frozenset({"avx512f", "avx512_vnni", "avx512_bf16"}),
    "amx": frozenset({"avx512f", "amx_tile", "amx_int8", "amx_bf16"}),
}
_ORDER = tuple(_FLAGS)
# What a user may limit oneDNN to, which torch and OpenVINO compute with; ONNX Runtime heeds no
# limit, and ATEN_CPU_CAPABILITY binds torch's other loops alone. A value that is not here limits
# nothing.
_ONEDNN_LIMITS = {
    "SSE41": "sse",
    "AVX": "sse",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx2-vnni",
    "AVX2_VNNI_2": "avx2-vnni",
    "AVX512_CORE": "avx512",
    "AVX512_CORE_VNNI": "vnni",
    "AVX512_CORE_BF16": "bf16",
    "AVX512_CORE_FP16": "bf16",
}
_LIMITED = "-onednn-"
# Of other processors: they add to the machine's name.
_OTHER_FLAGS = frozenset({"bf16", "i8mm", "sve"})

# x86 whose integer kernels in OpenVINO give other numbers than the graph, or were not measured.
_INT8_IN_FLOAT = frozenset({"sse", "avx2", "avx2-vnni", "avx512"})


def of_cpu(machine: str, flags: Collection[str], environ: Mapping[str, str]) -> str:
    """The class of a processor: sse, avx2, avx2-vnni, avx512, vnni, bf16 or amx; of one that is
    no x86, its machine name with the extensions that matter. Where `environ` limits oneDNN, some
    libraries compute with less than others, so such a host is of a class of its own:
    amx-onednn-avx2.
    """
    if machine not in ("x86_64", "i686", "AMD64"):
        return "-".join((machine, *sorted(_OTHER_FLAGS.intersection(flags))))
    found = [name for name, needed in _FLAGS.items() if needed.issubset(flags)]
    own = found[-1]
    limit = environ.get("ONEDNN_MAX_CPU_ISA") or environ.get("DNNL_MAX_CPU_ISA", "")
    limited = _ONEDNN_LIMITS.get(limit.upper(), own)
    if _ORDER.index(limited) >= _ORDER.index(own):
        return own
    return f"{own}{_LIMITED}{limited}"


def of_onednn(compute_class: str) -> str:
    """The class that oneDNN computes with on devices of this class: what it is limited to, if it
    is.
    """
    return compute_class.rpartition(_LIMITED)[2]


def runs_int8_in_float(compute_class: str) -> bool:
    """Whether OpenVINO is to compute int8 graphs in float on devices of this class."""
    return of_onednn(compute_class) in _INT8_IN_FLOAT


def of_host(host: Host | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The class of this host's processor, as this process may use it."""
    host = host or Host()
    flags = host.cpu_flags()
    return of_cpu(os.uname().machine, flags, os.environ if environ is None else environ)


def of_cuda(major: int, minor: int) -> str:
    """The class of a CUDA device, by its compute capability: sm_90."""
    return f"sm_{major}{minor}"
