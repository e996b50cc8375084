"""Whether the device can still compute: an error after which nothing in this process can, or pass
after pass that fails.

Pure. Guarded by the engine's lock.
"""

from collections.abc import Iterator

from yolopool.errors import OutOfMemory, YolopoolError

# cudaError_t of the CUDA Runtime API: of these it says "the process must be terminated and
# relaunched", or the device does not work at all. As cudaGetErrorString words them.
_CUDA_WORDS = (
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "an illegal memory access was encountered",
    "the launch timed out and was terminated",
    "device-side assert triggered",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "invalid access of peer gpu memory over nvlink or a hardware error",
    "device(s) is/are busy or unavailable",
    "no cuda-capable device is detected",
    "unknown error",
    # NVML and the kernel's log.
    "gpu is lost",
    "gpu has fallen off the bus",
)
_OF_DEVICES = ("cuda", "gpu", "xid")
MAX_CAUSES = 8
# Passes that fail in a row, over all versions, of versions that were well before.
FAILURES_IN_A_ROW = 24


def sticky_words(error: BaseException | None) -> str:
    """What an error, or one that caused it, says of a device that is of no use to this process any
    more; empty: it says nothing of the kind.
    """
    for one in _causes(error):
        text = str(one)
        lower = text.lower()
        if any(word in lower for word in _OF_DEVICES) and any(
            word in lower for word in _CUDA_WORDS
        ):
            return text.splitlines()[0]
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(MAX_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


class DeviceHealth:
    """Counts passes that fail. Images of one version that never worked say nothing of the device,
    and neither does memory that ran out.
    """

    def __init__(self) -> None:
        self._worked: set[str] = set()
        self._in_a_row = 0

    def well(self, version: str) -> None:
        """A pass was answered."""
        self._worked.add(version)
        self._in_a_row = 0

    def failed(self, version: str, error: YolopoolError) -> str:
        """A pass failed. Returns why the device is taken for broken; empty: it is not."""
        if version in self._worked and not isinstance(error, OutOfMemory):
            self._in_a_row += 1
        if self._in_a_row < FAILURES_IN_A_ROW:
            return ""
        return f"{self._in_a_row} passes failed in a row, the last with: {error.message}"

    def forget(self, version: str) -> None:
        """A version left."""
        self._worked.discard(version)
