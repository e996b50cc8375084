"""Who a worker is, and the highest fencing token that it has obeyed."""

from collections.abc import Sequence
from dataclasses import dataclass

from yolopool.errors import (
    StaleToken,
)
from yolopool.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is, as fleet_pb2.Worker has it."""

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
    """The highest token obeyed."""

    def __init__(self) -> None:
        self.highest = types_pb2.FencingToken()

    def check(self, token: types_pb2.FencingToken) -> None:
        """Raises StaleToken for a lower one, remembers a higher one."""
        seen = (self.highest.epoch, self.highest.counter)
        if (token.epoch, token.counter) < seen:
            raise StaleToken(
                f"token {token.epoch}.{token.counter} is below {seen[0]}.{seen[1]}, which this "
                "worker has obeyed: another control plane decides now"
            )
        self.highest = types_pb2.FencingToken(epoch=token.epoch, counter=token.counter)
