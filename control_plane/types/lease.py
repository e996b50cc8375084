"""The leader, and the token that fences its writes and commands. Pure and frozen."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class FencingToken:
    """A later leader has a higher token. `epoch` is drawn when the store is created."""

    epoch: int
    counter: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"


@dataclass(frozen=True, slots=True)
class Leader:
    """The control plane that leads: its name in the lease, its token, and host:port of its gRPC
    (empty: not known).
    """

    name: str
    token: FencingToken
    address: str = ""
