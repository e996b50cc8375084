"""Cron expressions in time zones: the only file that uses the cron library and time zones.

Arithmetic on arguments; reads no clock. An expression is matched against local time. A local time
skipped in spring means the next that exists; one repeated in autumn means the first.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from yolopool.errors import InvalidSchedule

FIELDS = 5
MAX_LINE_CHARS = 200
# As IANA names its zones. The library takes a name for the path of a file and of a module.
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """The zone of an IANA name; empty: UTC. Raises InvalidSchedule."""
    unknown = InvalidSchedule(
        f"time zone {name[:80]!r} is not known: give an IANA name such as Europe/Berlin"
    )
    if name and not _ZONE.fullmatch(name):
        raise unknown
    try:
        return ZoneInfo(name or "UTC")
    # ValueError: not a name; OSError: a folder of zones ("Europe"); otherwise KeyError.
    except (KeyError, ValueError, OSError) as error:
        raise unknown from error


def check_cron(cron: str) -> str:
    """The expression with single spaces. Raises InvalidSchedule if it is not one."""
    fields = cron.split()
    if len(fields) != FIELDS or len(cron) > MAX_LINE_CHARS:
        raise InvalidSchedule(
            f"cron {cron[:80]!r}: give five fields, minute hour day-of-month month day-of-week, "
            "such as '0 6 * * 1-5'"
        )
    line = " ".join(fields)
    try:
        next(CronSim(line, datetime(2000, 1, 1)))  # noqa: DTZ001 - local time
    except CronSimError as error:
        raise InvalidSchedule(f"cron {line!r}: {str(error)[:1].lower()}{str(error)[1:]}") from error
    except StopIteration:
        raise InvalidSchedule(f"cron {line!r} never matches: no year has such a day") from None
    return line


def next_after(cron: str, time_zone: str, unix_s: float) -> float:
    """The first match after `unix_s`, in Unix seconds; infinity if there is none."""
    zone = zone_of(time_zone)
    wall = datetime.fromtimestamp(unix_s, zone).replace(tzinfo=None, fold=0)
    moments = (_unix_s(match, zone) for match in CronSim(cron, wall))
    return next((moment for moment in moments if moment > unix_s), float("inf"))


def latest_at(cron: str, time_zone: str, unix_s: float) -> float:
    """The last match not after `unix_s`, in Unix seconds; minus infinity if there is none."""
    zone = zone_of(time_zone)
    now = datetime.fromtimestamp(unix_s, zone)
    # During the repeated hour all of the first pass is over, whatever local time says.
    repeated = (now.replace(fold=0).utcoffset() or timedelta()) - (now.utcoffset() or timedelta())
    wall = now.replace(tzinfo=None, fold=0) + max(repeated, timedelta())
    backwards: Iterator[datetime] = CronSim(cron, wall + timedelta(seconds=1), reverse=True)
    moments = (_unix_s(match, zone) for match in backwards)
    return next((moment for moment in moments if moment <= unix_s), float("-inf"))


def _unix_s(wall: datetime, zone: ZoneInfo) -> float:
    """When a zone first has this local time, or the next local time that exists."""
    local = wall.replace(tzinfo=zone)
    while local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall:
        wall += timedelta(minutes=1)
        local = wall.replace(tzinfo=zone)
    return local.timestamp()
