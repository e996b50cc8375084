"""Who decides: the leader's lease and the token that fences its writes. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class FencingToken:
    """Orders the writers of the fleet; `epoch` is drawn when the store is created."""

    epoch: int
    counter: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"


@dataclass(frozen=True, slots=True)
class Leader:
    """The control plane that decides: its name in the lease, its token, and host:port of its gRPC
    (empty: not said).
    """

    name: str
    token: FencingToken
    address: str = ""
