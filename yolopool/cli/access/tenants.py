"""`yolopool tenants`: who shares the pool, what each may take of it, and what it took."""

import re
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Table

from yolopool.cli.console import Address, AsJson, out, plain, print_json, say
from yolopool.client.access.tenant_records import DeletedTenant, Tenant, TenantUsage
from yolopool.client.client import Client
from yolopool.errors import InvalidOption
from yolopool.transport import DEFAULT_ADDRESS

tenants_app = typer.Typer(
    help="Set limits of tenants, see what they used, delete all of one.", no_args_is_help=True
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name, as `keys create --tenant` gave it.")
]
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)


@tenants_app.command("set")
def set_(
    name: Name,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models", help="Pattern of the models that are its own: 'team-a/*'; repeatable."
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Images a second; 0: no limit.", min=0)
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option("--concurrent", help="Images that wait for answers; 0: no limit.", min=0),
    ] = None,
    images_per_day: Annotated[
        int | None, typer.Option("--images-per-day", help="0: no limit.", min=0)
    ] = None,
    bytes_per_day: Annotated[
        str | None, typer.Option("--bytes-per-day", help="Such as 20GB; 0: no limit.")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Files of its models: 5GB; 0: no limit.")
    ] = None,
    memory_share: Annotated[
        float | None,
        typer.Option("--memory-share", help="Of devices' memory, 0..1; 0: no limit.", min=0, max=1),
    ] = None,
    weight: Annotated[
        float | None, typer.Option("--weight", help="Its part of a busy device beside others.")
    ] = None,
    ceiling: Annotated[
        str | None,
        typer.Option("--priority-ceiling", help="interactive (none is lowered), normal or bulk."),
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Workers for its models alone; '': none.")
    ] = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Add a tenant, or change it: what is not given keeps its value."""
    given: dict[str, Any] = {
        "models": tuple(models) if models is not None else None,
        "requests_per_s": rate,
        "concurrent_requests": concurrent,
        "images_per_day": images_per_day,
        "bytes_per_day": size_of(bytes_per_day),
        "store_bytes": size_of(store),
        "memory_share": memory_share,
        "weight": weight,
        "priority_ceiling": ceiling,
        "pool": pool,
    }
    with Client(address) as client:
        known = {tenant.name: tenant for tenant in client.list_tenants()}
        changes = {field: value for field, value in given.items() if value is not None}
        held = client.set_tenant(replace(known.get(name, Tenant(name)), **changes))
    print_json(plain(held)) if as_json else out.print(table((held,)))


@tenants_app.command("list")
def list_(as_json: AsJson = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List the tenants and their limits."""
    with Client(address) as client:
        found = client.list_tenants()
    print_json([plain(tenant) for tenant in found]) if as_json else out.print(table(found))


@tenants_app.command("usage")
def usage(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only of this tenant.")] = "",
    days: Annotated[
        int, typer.Option("--days", help="Days of UTC, today included.", min=1, max=35)
    ] = 1,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show what tenants used, by day."""
    with Client(address) as client:
        found = client.usage(name, days=days)
    print_json([plain(one) for one in found]) if as_json else out.print(usage_table(found))


@tenants_app.command("delete")
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be deleted.")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Delete all of a tenant: its keys, its models, its usage.

    It is not undone. A deletion that was interrupted goes on when it is repeated.
    """
    with Client(address) as client:
        found = client.delete_tenant(name, dry_run=True)
        if not dry_run and not yes:
            say(told(found))
            if typer.prompt(f"type {name} to delete all of it", err=True) != name:
                raise InvalidOption("nothing was deleted: that is not its name")
        if not dry_run:
            found = client.delete_tenant(name, confirm=name)
    if as_json:
        print_json(plain(found))
    else:
        say(f"{'would delete' if dry_run else 'deleted'}: {told(found)}")


def size_of(text: str | None) -> int | None:
    """Bytes, of 5GB, 300 MB or 1024. Raises InvalidOption."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidOption(f"{text!r} is no size: give bytes, or 300MB, 5GB, 1TB")
    return round(float(match[1]) * _UNITS[match[2].upper()])


def table(tenants: tuple[Tenant, ...]) -> Table:
    """Tenants as people read them; - stands for none."""
    shown = Table("Name", "Models", "Limits", "Weight", "Ceiling", "Pool", box=None)
    for one in tenants:
        shown.add_row(
            one.name,
            " ".join(one.models) or "-",
            limits(one),
            f"{one.weight:g}",
            one.priority_ceiling if one.priority_ceiling != "interactive" else "-",
            one.pool or "-",
        )
    return shown


def limits(tenant: Tenant) -> str:
    """The limits of a tenant in words: 50/s, 16 at once, 20GB a day."""
    parts = [
        (tenant.requests_per_s, f"{tenant.requests_per_s:g}/s"),
        (tenant.concurrent_requests, f"{tenant.concurrent_requests} at once"),
        (tenant.images_per_day, f"{tenant.images_per_day:,} images a day"),
        (tenant.bytes_per_day, f"{in_words(tenant.bytes_per_day)} a day"),
        (tenant.store_bytes, f"{in_words(tenant.store_bytes)} in the store"),
        (tenant.memory_share, f"{100 * tenant.memory_share:g}% of memory"),
    ]
    return ", ".join(text for limit, text in parts if limit) or "-"


def usage_table(found: tuple[TenantUsage, ...]) -> Table:
    shown = Table("Day", "Tenant", box=None)
    for title in ("Images", "Refused", "Bytes", "Device s", "GB·h"):
        shown.add_column(title, justify="right")
    for one in found:
        shown.add_row(
            one.day,
            one.name or "(none)",
            f"{one.images:,}",
            f"{one.refused:,}",
            in_words(one.bytes) if one.bytes else "0",
            f"{one.device_s:,.1f}",
            f"{one.gb_hours:,.3f}",
        )
    return shown


def in_words(size_bytes: int) -> str:
    """1.5GB, as options take it; - for none."""
    for unit, factor in reversed(_UNITS.items()):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.4g}{unit}B"
    return "-"


def told(found: DeletedTenant) -> str:
    """What there is of a tenant, in one line."""
    parts = [
        *([f"keys {' '.join(found.keys)}"] if found.keys else []),
        *([f"models {' '.join(found.models)}"] if found.models else []),
        *([f"schedules {' '.join(found.schedules)}"] if found.schedules else []),
        *([f"aliases {' '.join(found.aliases)}"] if found.aliases else []),
        *(
            [f"its models in schedules {' '.join(found.changed_schedules)}"]
            if found.changed_schedules
            else []
        ),
        *([f"usage of {found.usage_days} days"] if found.usage_days else []),
        *(["the tenant"] if found.existed else []),
    ]
    return ", ".join(parts) or "nothing is left"
