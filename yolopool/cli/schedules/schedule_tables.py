"""Tables of schedules, for people; they fit 80 columns."""

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from rich.markup import escape
from rich.table import Table

from yolopool.cli.tables import plain_table
from yolopool.client.rollout.schedule_records import Preparation, Schedule


def schedules(known: Iterable[Schedule]) -> Table:
    """A line for each schedule: when it runs, what it changes, and how the last run ended."""
    table = plain_table("SCHEDULE", "WHEN", "NEXT", "CHANGE", "LAST")
    for schedule in known:
        lead = f"\nloads {schedule.lead_s:g} s earlier" if schedule.lead_s else ""
        loads = [_prepares(preparation) for preparation in schedule.prepare]
        next_time = local_time(schedule.next_unix_s, schedule.time_zone)
        table.add_row(
            schedule.name,
            f"{_when(schedule)}\n{schedule.time_zone or 'UTC'}{lead}",
            "\n".join(filter(None, (next_time, schedule.sun_absence))),
            "\n".join([*loads, *(f"- {model}" for model in schedule.release)]),
            _last(schedule),
        )
    return table


def _when(one: Schedule) -> str:
    if one.place is None:
        return one.cron
    return f"{one.sun} at {one.place[0]:g},{one.place[1]:g}"


def _prepares(one: Preparation) -> str:
    many = f" x{one.replicas}" if one.replicas > 1 else ""
    return f"+ {one.model}{many}{' pinned' if one.pinned else ''}"


def _last(one: Schedule) -> str:
    if not one.last_unix_s:
        return "-"
    when = local_time(one.last_unix_s, one.time_zone)
    # Escaped: it may quote a worker.
    how = f"[red]{escape(one.last_error)}[/]" if one.last_error else "[green]done[/]"
    return f"{when}\n{how}"


def local_time(unix_s: float, time_zone: str) -> str:
    """A time in a zone with its offset; in UTC if this machine does not know the zone."""
    try:
        zone: tzinfo = ZoneInfo(time_zone or "UTC")
    except (KeyError, ValueError, OSError):
        zone = UTC
    try:
        return f"{datetime.fromtimestamp(unix_s, zone):%a %Y-%m-%d %H:%M %z}"
    except (OverflowError, ValueError):  # a time that never comes
        return "never"
