"""The moments of cron lines in time zones: the only door to the cron library and the zones.

Arithmetic on its arguments, no clock. A line is followed on the wall clock, each of whose times
counts once: one that is skipped as the next there is, one that is repeated as the first.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from yolopool.errors import InvalidSchedule

FIELDS = 5
LONGEST_LINE = 200


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """A zone by its IANA name, empty: UTC. Raises InvalidSchedule."""
    try:
        return ZoneInfo(name or "UTC")
    # ValueError: no name at all ("../x"); OSError: a folder of zones ("Europe"); the rest KeyError.
    except (KeyError, ValueError, OSError) as error:
        raise InvalidSchedule(
            f"time zone {name[:80]!r} is not known: give an IANA name such as Europe/Berlin"
        ) from error


def check_cron(cron: str) -> str:
    """The line with single spaces. Raises InvalidSchedule for what is none."""
    fields = cron.split()
    if len(fields) != FIELDS or len(cron) > LONGEST_LINE:
        raise InvalidSchedule(
            f"cron {cron[:80]!r}: give five fields, minute hour day-of-month month day-of-week, "
            "such as '0 6 * * 1-5'"
        )
    line = " ".join(fields)
    try:
        next(CronSim(line, datetime(2000, 1, 1)))  # noqa: DTZ001 - on the wall clock
    except CronSimError as error:
        raise InvalidSchedule(f"cron {line!r}: {str(error)[:1].lower()}{str(error)[1:]}") from error
    except StopIteration:
        raise InvalidSchedule(f"cron {line!r} never comes: no such day is in any year") from None
    return line


def next_after(cron: str, time_zone: str, unix_s: float) -> float:
    """The first moment after a time, Unix seconds; infinity if there is none."""
    zone = zone_of(time_zone)
    wall = datetime.fromtimestamp(unix_s, zone).replace(tzinfo=None, fold=0)
    moments = (_unix_s(one, zone) for one in CronSim(cron, wall))
    return next((moment for moment in moments if moment > unix_s), float("inf"))


def latest_at(cron: str, time_zone: str, unix_s: float) -> float:
    """The last moment not after a time, Unix seconds; minus infinity if there is none."""
    zone = zone_of(time_zone)
    now = datetime.fromtimestamp(unix_s, zone)
    # In an hour that is repeated all of its first pass is over, whatever the wall clock says.
    repeated = (now.replace(fold=0).utcoffset() or timedelta()) - (now.utcoffset() or timedelta())
    wall = now.replace(tzinfo=None, fold=0) + max(repeated, timedelta())
    backwards: Iterator[datetime] = CronSim(cron, wall + timedelta(seconds=1), reverse=True)
    moments = (_unix_s(one, zone) for one in backwards)
    return next((moment for moment in moments if moment <= unix_s), float("-inf"))


def _unix_s(wall: datetime, zone: ZoneInfo) -> float:
    """When the wall clock of a zone first shows a time, or the next that it does show."""
    local = wall.replace(tzinfo=zone)
    while local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall:
        wall += timedelta(minutes=1)
        local = wall.replace(tzinfo=zone)
    return local.timestamp()
