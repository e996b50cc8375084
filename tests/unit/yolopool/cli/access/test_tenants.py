"""Sizes as people write them, and tenants as they read them."""

import pytest
from rich.console import Console

from yolopool.cli.access.tenants import in_words, size_of, table, told, usage_table
from yolopool.client.access.tenant_records import DeletedTenant, Tenant, TenantUsage
from yolopool.errors import InvalidOption


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1024", 1024), ("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("2T", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert size_of(text) == size
    assert not size or size_of(in_words(size)) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5 PB", "5GiB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        size_of(text)


def shown(what: object) -> list[str]:
    plain = Console(width=200, force_terminal=False)
    with plain.capture() as text:
        plain.print(what)
    return [" ".join(line.split()) for line in text.get().splitlines()]


def test_a_tenant_in_a_line_with_a_dash_for_what_is_not_limited() -> None:
    north = Tenant("north", ("n/*", "x"), 0.5, 8, 0, 2 * 10**9, 0, 0.25, 2.0, "bulk", "night")
    head, line, free = shown(table((north, Tenant("free"))))
    assert head == "Name Models Limits Weight Ceiling Pool"
    assert line == "north n/* x 0.5/s, 8 at once, 2GB a day, 25% of memory 2 bulk night"
    assert free == "free - - 1 - -"


def test_usage_in_a_line() -> None:
    used = TenantUsage("", "2026-03-01", 1200, 1_000_000, 2_500_000_000, 12.34, 0.5)
    assert shown(usage_table((used,)))[1] == "2026-03-01 (none) 1,000,000 1,200 2.5GB 12.3 0.500"


def test_what_goes_with_a_tenant() -> None:
    assert told(DeletedTenant((), (), (), (), 0, False)) == "nothing is left"
    all_of = DeletedTenant(("k1",), ("n/a@1", "n/b@2"), ("day",), ("mixed",), 3, True)
    assert told(all_of) == (
        "keys k1, models n/a@1 n/b@2, schedules day, its models in schedules mixed, "
        "usage of 3 days, the tenant"
    )
