"""Who this worker is, and the highest fencing token that it has obeyed."""

from collections.abc import Sequence
from dataclasses import dataclass

from yolopool.errors import StaleToken
from yolopool.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class Identity:
    """The fields of fleet_pb2.Worker that say who this worker is."""

    id: str
    incarnation: str
    address: str
    device: str
    device_kind: str
    device_name: str
    labels: dict[str, str]
    release: str
    replaces_because: str
    precision: str
    compute_class: str = ""
    io_addresses: Sequence[str] = ()


class Fence:
    """Rejects orders from a control plane that is no longer the leader."""

    def __init__(self) -> None:
        self.highest = types_pb2.FencingToken()

    def check(self, token: types_pb2.FencingToken) -> None:
        """Raises StaleToken for a token below the highest one, and else remembers it."""
        seen = (self.highest.epoch, self.highest.counter)
        if (token.epoch, token.counter) < seen:
            raise StaleToken(
                f"token {token.epoch}.{token.counter} is below {seen[0]}.{seen[1]}, which this "
                "worker has obeyed: another control plane is the leader now"
            )
        self.highest = types_pb2.FencingToken(epoch=token.epoch, counter=token.counter)
