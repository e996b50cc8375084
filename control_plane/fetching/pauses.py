"""How long to wait before what failed is tried again. Pure."""

FIRST_S, MAX_S = 0.5, 30.0


def pause_s(failures: int, chance: float) -> float:
    """Twice as long after each failure in a row, up to MAX_S; `chance`, 0..1, takes up to a half
    away, so that many do not come at once.
    """
    longest = min(MAX_S, FIRST_S * 2.0 ** min(failures - 1, 16))
    return longest * (1.0 - 0.5 * chance)
