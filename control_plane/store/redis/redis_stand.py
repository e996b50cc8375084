"""Which state of which store META describes, and whether the store holds all of it. Pure.

Each commit records the lengths of the hashes beside the mark of its revision. Redis evicts a hash
as a whole, so a length that is not as recorded means that the hash is lost. A release that records
none leaves those of an earlier mark: they are recorded anew.
"""

from collections.abc import Sequence
from typing import NamedTuple

from control_plane.store.registry import StoreDamaged, StoreEmptied

# For scripts: the lengths of the hashes KEYS[first] and after.
LENGTHS = """
local function lengths(first)
    local found = {}
    for at = first, #KEYS do
        table.insert(found, KEYS[at] .. '=' .. redis.call('HLEN', KEYS[at]))
    end
    return table.concat(found, ' ')
end
"""


class Stand(NamedTuple):
    """Which state of which store, and how long its hashes are."""

    cluster: str
    revision: str
    mark: str
    lengths: str


UNREAD = Stand("", "", "", "")


def lengths_of(text: str) -> dict[str, int]:
    """Reads what `lengths` of LENGTHS wrote: name=length, separated by spaces."""
    parts = (part.rpartition("=") for part in text.split(" ") if part)
    return {name: int(length) for name, _, length in parts}


def checked(found: Sequence[str | None], lengths: str) -> Stand | None:
    """The stand of a store that holds all it should: `found` are the fields, `lengths` those that
    the hashes have. None: the store is of an earlier release, or was last written by one, and must
    be marked (`RedisStore.create`).

    Raises StoreEmptied and StoreDamaged.
    """
    cluster, revision, mark, held = found
    if cluster is None:
        raise StoreEmptied
    if revision is None or mark is None or held is None:
        return None
    of, _, recorded = held.partition(" ")
    if of != mark:
        return None
    if recorded != lengths:
        lost = lost_of(recorded, lengths)
        if lost:
            raise StoreDamaged(lost)
    return Stand(cluster, revision, mark, lengths)


def lost_of(recorded: str, lengths: str) -> tuple[str, ...]:
    """The hashes that are not as long as recorded. One that was not recorded is not judged."""
    known, now = lengths_of(recorded), lengths_of(lengths)
    return tuple(name for name in now if known.get(name, now[name]) != now[name])
