"""Counts by day, each taken once, and bounded."""

from collections import Counter

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


def test_names_that_are_not_set_are_bounded_in_a_whole_day() -> None:
    meter = UsageMeter()
    images: Counter[str] = Counter()
    for number in range(usage_meter.MAX_TENANTS + 50):
        meter.of(f"t{number}", 0.0, is_set=False).images += 1
        ((_, used),) = meter.take()
        images.update({name: usage.images for name, usage in used.items()})
    assert len(images) == usage_meter.MAX_TENANTS + 1
    assert images[OTHERS] == 50
    meter.of("t2000", DAY_S + 1.0, is_set=False).images += 1
    assert dict(meter.take()[0].used) == {"t2000": Usage(images=1)}


def test_a_tenant_that_is_set_is_counted_apart_however_many_names_there_are() -> None:
    meter = UsageMeter()
    for number in range(usage_meter.MAX_TENANTS + 50):
        meter.of(f"t{number}", 0.0, is_set=False).images += 1
    for tenant in ("", "set"):
        meter.of(tenant, 0.0).images += 3
        assert meter.so_far(tenant).images == 3
