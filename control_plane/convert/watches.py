"""Watches between proto and types: `_in` checks and decodes, `_out` encodes."""

from control_plane.convert.schedules import check_schedule_name
from control_plane.types.sources.watch import (
    DEFAULT_EVERY_S,
    DEFAULT_PATTERNS,
    DEFAULT_SETTLE_S,
    Watch,
)
from yolopool.errors import InvalidOption, InvalidSchedule
from yolopool.names import check_name
from yolopool.v1 import watches_pb2

MAX_EVERY_S = 86_400.0
MAX_PATTERNS, MAX_PATTERN_CHARS = 8, 100


def watch_in(message: watches_pb2.Watch, by: str, now_unix_s: float) -> Watch:
    """Raises InvalidModelName and InvalidOption; the URI is looked at by who knows the rules."""
    every_s, settle_s = message.every_s or DEFAULT_EVERY_S, message.settle_s or DEFAULT_SETTLE_S
    # Written so that NaN is rejected too.
    if not (1.0 <= every_s <= MAX_EVERY_S and 0.0 < settle_s <= MAX_EVERY_S):
        raise InvalidOption(f"every_s is 1 to {MAX_EVERY_S:g} seconds, settle_s at most as many")
    patterns = tuple(message.patterns) or DEFAULT_PATTERNS
    if len(patterns) > MAX_PATTERNS or any(
        not pattern or "/" in pattern or len(pattern) > MAX_PATTERN_CHARS for pattern in patterns
    ):
        raise InvalidOption(
            f"at most {MAX_PATTERNS} patterns of file names, each of 1 to {MAX_PATTERN_CHARS} "
            "characters without /, such as *.pt"
        )
    return Watch(
        check_watch_name(message.name),
        message.uri.rstrip("/") + "/",
        check_name(message.model),
        patterns,
        message.profile,
        every_s,
        settle_s,
        by,
        now_unix_s,
    )


def watch_out(watch: Watch) -> watches_pb2.Watch:
    return watches_pb2.Watch(
        name=watch.name,
        uri=watch.uri,
        model=watch.model,
        patterns=watch.patterns,
        profile=watch.profile,
        every_s=watch.every_s,
        settle_s=watch.settle_s,
        known_files=len(watch.seen),
        by=watch.by,
        error=watch.error,
    )


def check_watch_name(name: str) -> str:
    try:
        return check_schedule_name(name)
    except InvalidSchedule as error:
        raise InvalidOption("the name of a watch has 1 to 63 of a-z 0-9 . _ -") from error
