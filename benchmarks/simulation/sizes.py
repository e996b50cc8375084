"""Sizes of models, and what bringing one to a device costs. Bytes and seconds.

Bringing one from the local pack cache is measured: `load_path-2026-11-21.json` has 3.6 ms beyond a
warm pass for yolo11n (10.6 MB) and 70.0 ms for yolov8x (273 MB) on two Xeon cores, of which copying
the bytes is 0.7 and 24.3 ms; between them a line.
Fetching and verifying from a store elsewhere is assumed: 20 ms and 500 MB/s.
"""

from dataclasses import dataclass

MB = 1_000_000
SWAP_FIXED_S, SWAP_BYTES_PER_S = 0.0009, 3.95e9
COPY_BYTES_PER_S = 11.3e9
FETCH_FIXED_S, FETCH_BYTES_PER_S = 0.020, 500e6
# A pass of an n-size model on a middle-class GPU, as `TimeCurve` assumes it, and its parameters.
PASS_S, PASS_PARAMETERS = 0.0026, 2.6e6


@dataclass(frozen=True, slots=True)
class Model:
    """fp32 weights, parameters, and the architecture it shares with others of its size."""

    size: str
    weights_bytes: int

    @property
    def parameters(self) -> int:
        return self.weights_bytes // 4

    @property
    def copy_s(self) -> float:
        """Of a swap, what the device is busy with."""
        return self.weights_bytes / COPY_BYTES_PER_S

    @property
    def read_s(self) -> float:
        """From the local pack cache to host memory."""
        return self.swap_s - self.copy_s

    @property
    def swap_s(self) -> float:
        """From the local pack cache to the device."""
        return SWAP_FIXED_S + self.weights_bytes / SWAP_BYTES_PER_S

    @property
    def fetch_s(self) -> float:
        """From the artifact store to the local pack cache."""
        return FETCH_FIXED_S + self.weights_bytes / FETCH_BYTES_PER_S

    @property
    def pass_s(self) -> float:
        """One image; time grows more slowly than parameters."""
        return float(PASS_S * (self.parameters / PASS_PARAMETERS) ** 0.6)


# yolo11 n, s, m, l, x.
SIZES = {
    "n": Model("n", int(10.6 * MB)),
    "s": Model("s", int(37.9 * MB)),
    "m": Model("m", 80 * MB),
    "l": Model("l", 105 * MB),
    "x": Model("x", 228 * MB),
}
