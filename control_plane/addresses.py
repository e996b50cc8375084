"""Where a control plane listens, and where others reach it."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where this control plane listens, as host:port."""

    grpc: str
    http: str
    pool: str = ""  # for the pool's own processes, if that is another


def reachable(host: str, port: int) -> str:
    """Where other machines probably reach a bound port."""
    return address_of(socket.gethostname() if host in ("0.0.0.0", "::", "") else host, port)


def address_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
