"""Which form of an answer a caller wants, by its `Accept` header (RFC 9110, 12.5.1). Pure."""

from collections.abc import Sequence

_WEIGHT = "q"


def choose(accept: str, offered: Sequence[str]) -> str | None:
    """The offered media type that `Accept` wants most; of equals the first offered. None: none.

    Each offered type has the weight of the most precise range that matches it. A header that is
    empty or says nothing that can be read takes everything, as if it were not there.
    """
    ranges = [found for part in accept.split(",") if (found := _range(part)) is not None]
    if not ranges:
        return offered[0]
    weights = [_weight(media_type, ranges) for media_type in offered]
    best = max(weights)
    return offered[weights.index(best)] if best > 0.0 else None


def _weight(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    group = media_type.partition("/")[0] + "/*"
    for wanted in (media_type, group, "*/*"):
        found = [weight for text, weight in ranges if text == wanted]
        if found:
            return max(found)
    return 0.0


def _range(part: str) -> tuple[str, float] | None:
    """`image/jpeg;q=0.5` as its type and weight; None: it is no media range."""
    text, *parameters = (word.strip().lower() for word in part.split(";"))
    kind, slash, subtype = text.partition("/")
    if not (kind and slash and subtype) or (kind == "*" and subtype != "*"):
        return None
    # "image/jpg" is what people write for it.
    text = "image/jpeg" if text == "image/jpg" else text
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == _WEIGHT:
            return (text, _number(value.strip()))
    return (text, 1.0)


def _number(text: str) -> float:
    """0..1; what can't be read counts as 1, since the caller named the type."""
    try:
        weight = float(text)
    except ValueError:
        return 1.0
    return weight if 0.0 <= weight <= 1.0 else 1.0
