"""Counts by day, each taken once, and bounded."""

from control_plane.tenants import usage_meter
from control_plane.tenants.usage_meter import DAY_S, OTHERS, UsageMeter
from control_plane.types.access.usage import Usage


def test_what_was_counted_is_taken_once_and_by_day() -> None:
    meter = UsageMeter()
    meter.of("a", 10.0).images += 2
    meter.of("a", DAY_S - 1.0).bytes += 5
    meter.of("b", DAY_S + 1.0).device_s += 0.5
    assert meter.so_far("b") == Usage(device_s=0.5)
    assert [(day, dict(used)) for day, used in meter.take()] == [
        (0, {"a": Usage(images=2, bytes=5)}),
        (1, {"b": Usage(device_s=0.5)}),
    ]
    assert meter.take() == []


def test_names_are_bounded() -> None:
    meter = UsageMeter()
    for number in range(usage_meter.MAX_TENANTS + 50):
        meter.of(f"t{number}", 0.0).images += 1
    ((_, used),) = meter.take()
    assert len(used) == usage_meter.MAX_TENANTS + 1
    assert used[OTHERS].images == 50
