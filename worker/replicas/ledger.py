"""The memory account of one device, in bytes: the ledger never promises more than the budget.

context + sum(weights) + max(workspace) + graph pool + sum(private) + load transient <= budget.
Pure and immutable: reserve -> commit(measured) -> release, each returns the next ledger. When
others use the device, the budget may shrink below what is held: then nothing more is promised.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from yolopool.errors import LedgerFull


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes that one replica needs on the device.

    Only the largest workspace of all replicas counts, since one pass runs at a time.
    `private_bytes` is what the backend keeps for this replica alone, beside its weights.
    `transient_bytes` is needed only while loading.
    """

    weights_bytes: int
    workspace_bytes: int = 0
    private_bytes: int = 0
    transient_bytes: int = 0

    def __post_init__(self) -> None:
        if min(self.weights_bytes, self.workspace_bytes, self.private_bytes) < 0 or (
            self.transient_bytes < 0
        ):
            raise ValueError(f"a claim has no negative bytes: {self}")


@dataclass(frozen=True, slots=True, repr=False)
class Ledger:
    """Claims by replica: `reserved` while a load is under way, `committed` once measured."""

    budget_bytes: int
    context_bytes: int = 0
    graph_pool_bytes: int = 0
    # The most replicas at once, whatever their bytes; 0: any number.
    max_replicas: int = 0
    reserved: Mapping[str, Claim] = field(default_factory=lambda: MappingProxyType({}))
    committed: Mapping[str, Claim] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        """`5.1 of 8.0 GiB: context 0.3, weights 4.2, workspace 0.6; a@1, b@1; loading c@1`."""
        parts = {
            "context": self.context_bytes,
            "weights": self.weights_bytes,
            "workspace": self.workspace_bytes,
            "graphs": self.graph_pool_bytes,
            "private": self.private_bytes,
            "loads": self.load_transient_bytes,
        }
        sizes = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
        held = "; ".join(filter(None, (sizes, ", ".join(self.committed))))
        loading = f"; loading {', '.join(self.reserved)}" if self.reserved else ""
        used = f"{_gib(self.used_bytes)} of {_gib(self.budget_bytes)} GiB"
        return f"<Ledger {used}: {held or 'empty'}{loading}>"

    @property
    def weights_bytes(self) -> int:
        """Weights of all replicas that are loaded."""
        return sum(claim.weights_bytes for claim in self.committed.values())

    @property
    def workspace_bytes(self) -> int:
        """The largest of all claims. Loads under way count: they run warm-up passes."""
        return max((claim.workspace_bytes for claim in self._claims()), default=0)

    @property
    def private_bytes(self) -> int:
        return sum(claim.private_bytes for claim in self.committed.values())

    @property
    def load_transient_bytes(self) -> int:
        """All that loads under way may use, their weights included."""
        return sum(
            claim.weights_bytes + claim.private_bytes + claim.transient_bytes
            for claim in self.reserved.values()
        )

    @property
    def used_bytes(self) -> int:
        return (
            self.context_bytes
            + self.weights_bytes
            + self.workspace_bytes
            + self.graph_pool_bytes
            + self.private_bytes
            + self.load_transient_bytes
        )

    @property
    def free_bytes(self) -> int:
        """Never negative after `reserve`, `commit` and `release`. It may be negative after
        `with_budget`, until enough is released.
        """
        return self.budget_bytes - self.used_bytes

    def holds(self, key: str) -> bool:
        return key in self.reserved or key in self.committed

    def reserve(self, key: str, claim: Claim) -> "Ledger":
        """Promises the bytes of a load that is about to start.

        Raises LedgerFull with the numbers, and ValueError for a key that is held already.
        """
        if self.holds(key):
            raise ValueError(f"{key} holds bytes already: release them first")
        count = len(self.reserved) + len(self.committed)
        if self.max_replicas and count >= self.max_replicas:
            raise LedgerFull(
                f"{count} models are on the device and --max-hot allows no more: release one",
                details={"max_hot": str(self.max_replicas)},
            )
        grown = replace(self, reserved=_with(self.reserved, key, claim))
        return grown._within_budget(self, key)

    def commit(self, key: str, measured: Claim) -> "Ledger":
        """Replaces a reservation by what was measured.

        Raises LedgerFull if that does not fit: drop the replica and release its bytes. KeyError
        for a key that is not reserved.
        """
        if key not in self.reserved:
            raise KeyError(f"{key} has no reservation to commit")
        settled = replace(
            self,
            reserved=_without(self.reserved, key),
            committed=_with(self.committed, key, replace(measured, transient_bytes=0)),
        )
        return settled._within_budget(self, key)

    def widen(self, key: str, workspace_bytes: int) -> "Ledger":
        """Sets the working memory of a committed claim. Less than it has always fits.

        Raises LedgerFull if more does not fit, and KeyError for a key that is not committed.
        """
        claim = replace(self.committed[key], workspace_bytes=workspace_bytes)
        changed = replace(self, committed=_with(self.committed, key, claim))
        if changed.used_bytes <= self.used_bytes:
            return changed
        return changed._within_budget(self, key)

    def release(self, key: str) -> "Ledger":
        """Releases all bytes of a key, reserved or committed. A key that is not held changes
        nothing.
        """
        return replace(
            self,
            reserved=_without(self.reserved, key),
            committed=_without(self.committed, key),
        )

    def with_budget(self, budget_bytes: int) -> "Ledger":
        """The same account under another budget, which may be less than is held."""
        return replace(self, budget_bytes=budget_bytes)

    def _claims(self) -> Iterable[Claim]:
        yield from self.reserved.values()
        yield from self.committed.values()

    def _within_budget(self, before: "Ledger", key: str) -> "Ledger":
        if self.used_bytes <= self.budget_bytes:
            return self
        needed = self.used_bytes - before.used_bytes
        raise LedgerFull(
            f"{key} needs {needed} more bytes of the device and {before.free_bytes} of its "
            f"budget of {self.budget_bytes} are free: release a model or raise --memory-budget",
            details={
                "needed_bytes": str(needed),
                "free_bytes": str(before.free_bytes),
                "budget_bytes": str(self.budget_bytes),
            },
        )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f}"


def _with(claims: Mapping[str, Claim], key: str, claim: Claim) -> Mapping[str, Claim]:
    return MappingProxyType({**claims, key: claim})


def _without(claims: Mapping[str, Claim], key: str) -> Mapping[str, Claim]:
    return MappingProxyType({held: claim for held, claim in claims.items() if held != key})
