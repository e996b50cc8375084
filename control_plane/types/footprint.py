"""What a version takes on a device, in bytes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from control_plane.types.version import DeviceVariant, ModelVersion

PIXELS_PER_MEGAPIXEL = 1_000_000
INPUT_BYTES_PER_PIXEL = 3 * (1 + 4)
# The library's size for a version whose settings say none; an import always fills it in.
DEFAULT_IMAGE_SIZE = 640


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes a replica takes on a device, and ms (0: not known) that bringing it there from host
    memory takes, and from the artifact store to host memory.
    """

    weights_bytes: int
    workspace_bytes: int
    private_bytes: int = 0
    max_batch: int = 0
    swap_ms: float = 0.0
    fetch_ms: float = 0.0

    @property
    def kept_bytes(self) -> int:
        """While it is on the device, whether it runs or not."""
        return self.weights_bytes + self.private_bytes

    @property
    def device_bytes(self) -> int:
        """While it runs, alone on the device."""
        return self.kept_bytes + self.workspace_bytes

    def differs(self, other: "Footprint | None") -> bool:
        """Whether the other is missing or more than a hundredth (times: a half) away."""
        if other is None or self.max_batch != other.max_batch:
            return True
        sizes = (
            (self.weights_bytes, other.weights_bytes),
            (self.workspace_bytes, other.workspace_bytes),
            (self.private_bytes, other.private_bytes),
        )
        times = ((self.swap_ms, other.swap_ms), (self.fetch_ms, other.fetch_ms))
        return any(abs(new - old) > 0.01 * old for new, old in sizes) or any(
            abs(new - old) > 0.5 * old for new, old in times
        )


@dataclass(frozen=True, slots=True, order=True)
class FootprintKey:
    """What footprints are kept by: a pack (its digest), a variant, and a kind of device with its
    compute class.
    """

    pack: str
    variant: str  # backend/precision
    device_kind: str
    compute_class: str = ""  # empty: not known, as of releases that did not say it

    @classmethod
    def of(cls, pack: str, build: DeviceVariant) -> "FootprintKey":
        return cls(pack, *build)


def measured(key: FootprintKey, known: Mapping[FootprintKey, Footprint]) -> Footprint | None:
    """What was measured on such devices; else on those that said no compute class."""
    found = known.get(key)
    return found if found is not None else known.get(replace(key, compute_class=""))


def footprint(
    version: ModelVersion, build: DeviceVariant, known: Mapping[FootprintKey, Footprint]
) -> Footprint:
    """Bytes of a version as a worker makes it: as known, else the estimate of its import.

    The estimate is weights + activations per megapixel x image_size^2 of one image, the largest
    that may be asked for, and that image as bytes and as float32, three channels each: what
    workers reserve before they measure.
    """
    pack, made = version.made_by(build)
    if pack is None:
        return Footprint(0, 0)
    found = measured(FootprintKey.of(pack.digest, made), known)
    if found is not None:
        return found
    size = version.settings.largest_image or DEFAULT_IMAGE_SIZE
    pixels = size * size
    activations = pack.activation_bytes_per_megapixel * pixels // PIXELS_PER_MEGAPIXEL
    return Footprint(pack.weights_bytes, activations + pixels * INPUT_BYTES_PER_PIXEL)
