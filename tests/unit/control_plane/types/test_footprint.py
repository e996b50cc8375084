"""Footprints: as measured, else estimated."""

from dataclasses import replace

from control_plane.types.footprint import Footprint, footprint
from control_plane.types.version import DeviceVariant, VersionSettings
from tests.unit.control_plane.fleets import (
    measured,
    version,
)


def test_estimates_stand_until_something_is_measured() -> None:
    one = version("a", 100)
    assert one.pack is not None
    one = replace(
        one,
        pack=replace(one.pack, activation_bytes_per_megapixel=1_000_000),
        settings=VersionSettings(image_size=1000),
    )
    assert footprint(one, DeviceVariant.usual("sim"), {}) == Footprint(100, 1_000_000 + 15_000_000)
    assert footprint(
        one, DeviceVariant.usual("sim"), {measured("a"): Footprint(7, 8)}
    ) == Footprint(7, 8)
    assert (
        footprint(one, DeviceVariant.usual("cpu"), {measured("a"): Footprint(7, 8)}).weights_bytes
        == 100
    )
