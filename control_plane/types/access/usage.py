"""What tenants used in a day, and what control planes have of their quotas. Pure and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

# Days of usage that are kept.
DAYS_KEPT = 35


@dataclass(frozen=True, slots=True)
class Usage:
    """What one tenant used; see TenantUsage of tenants.proto."""

    refused: int = 0
    images: int = 0
    bytes: int = 0
    device_s: float = 0.0
    gb_hours: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        names = [field.name for field in fields(Usage)]
        return Usage(*(getattr(self, name) + getattr(other, name) for name in names))


class Part(NamedTuple):
    """What a control plane has of a tenant's quota, 0..1, and how many requests a second ask it."""

    demand: float
    share: float


Parts = Mapping[str, Part]  # by tenant
