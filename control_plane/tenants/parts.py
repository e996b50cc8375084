"""How several control planes share a tenant's rate and concurrency: each has a part, by its demand.

Pure. A part grows only by what the others have given up before, so that all parts together are at
most 1, however demand moves.
"""

from collections.abc import Mapping

from control_plane.types.access.usage import Part, Parts

# Of a quota, divided evenly, so that the first requests at a control plane are let in.
EVEN = 0.1


def parts_of(
    plane: str, demands: Mapping[str, float], known: Mapping[str, Parts]
) -> dict[str, Part]:
    """The parts that a control plane takes. `known`: those that each live one has now, by its name;
    one that has none yet counts as having an even part.

    A control plane that was never heard of takes its even part of EVEN at once: until the others
    have looked again, all parts together are at most 1 + EVEN.
    """
    others = [parts for name, parts in known.items() if name != plane]
    count = 1 + len(others)
    return {
        tenant: Part(demand, _share(demand, [parts.get(tenant) for parts in others], count))
        for tenant, demand in demands.items()
    }


def _share(demand: float, others: list[Part | None], count: int) -> float:
    even = 1.0 / count
    total = demand + sum(part.demand for part in others if part is not None)
    wanted = demand / total if total > 0 else even
    left = 1.0 - sum(part.share if part is not None else even for part in others)
    return max(EVEN * even, min(EVEN * even + (1.0 - EVEN) * wanted, left))
