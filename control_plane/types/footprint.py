"""The footprint of a version on a device: bytes, and the times of bringing it there. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from control_plane.types.version import DeviceVariant, ModelVersion
from yolopool.vocabulary import INPUT_BYTES_PER_PIXEL

PIXELS_PER_MEGAPIXEL = 1_000_000
# For a version whose settings have no size; an import always fills one in.
DEFAULT_IMAGE_SIZE = 640


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a replica takes on a device, and how long in ms (0: not known) it takes from host
    memory to the device (`swap_ms`) and from the artifact store to host memory (`fetch_ms`).
    """

    weights_bytes: int
    workspace_bytes: int
    private_bytes: int = 0
    max_batch: int = 0
    swap_ms: float = 0.0
    fetch_ms: float = 0.0

    @property
    def kept_bytes(self) -> int:
        """Bytes while it is on the device, whether it runs or not."""
        return self.weights_bytes + self.private_bytes

    @property
    def device_bytes(self) -> int:
        """Bytes while it runs alone on the device."""
        return self.kept_bytes + self.workspace_bytes

    def differs(self, other: "Footprint | None") -> bool:
        """Whether `other` is missing, or differs by more than 1 % in bytes or by half in times."""
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
    """Footprints are measured per pack (its digest), variant, device kind and compute class."""

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
    """The footprint of a version as a worker makes it: as measured, else estimated.

    The estimate is what workers reserve before they measure: the weights, and for one image of the
    largest size that a request may ask for its activations and its input.
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
