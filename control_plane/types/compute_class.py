"""Where a comparison of a build counts: on devices that are known to compute the same. Pure."""

# Sums of it differ by their order alone, whatever the device multiplies with.
EXACT_PRECISION = "fp32"


def computes_alike(precision: str, checked: str, other: str) -> bool:
    """Whether what was found on devices of the compute class `checked` holds for `other`; an
    empty class is not known.
    """
    return precision == EXACT_PRECISION or (checked == other and bool(other))
