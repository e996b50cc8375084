"""How a client reaches a pool, and what both ends of a connection agree on.

Standard library only: servers and clients both import it.
"""

import ipaddress
import json
import os
from collections.abc import Iterable, Mapping

from yolopool.vocabulary import MAX_MESSAGE_BYTES

DEFAULT_ADDRESS = "127.0.0.1:50051"
MESSAGE_SIZE_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
# gRPC takes the first of these as its proxy; NO_PROXY lists the hosts that it reaches without.
PROXY = ("grpc_proxy", "https_proxy", "http_proxy")
NO_PROXY = ("no_grpc_proxy", "no_proxy")
WITHOUT_PROXY = (("grpc.enable_http_proxy", 0),)
# Calls that change nothing: gRPC retries them while the pool is UNAVAILABLE and time is left.
_REPEATABLE = {
    "yolopool.v1.DetectionService": ("Detect",),
    "yolopool.v1.ModelService": ("ListModels", "GetModel"),
    "yolopool.v1.FleetService": ("ListWorkers", "GetWorker", "GetFleet"),
    "yolopool.v1.EventService": ("WatchEvents",),
    "yolopool.v1.ExplainService": ("PlanLoad", "ExplainModel", "ExplainRequest"),
    "yolopool.v1.ScheduleService": ("ListSchedules", "GetSchedule"),
}
CLIENT_OPTIONS: tuple[tuple[str, int | str], ...] = (
    *MESSAGE_SIZE_OPTIONS,
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Before a server ends an idle connection (--grpc-idle-s), of which gRPC tells the client's user
    # in its log. Either takes up to twice its time, so this is less than half of the server's.
    ("grpc.client_idle_timeout_ms", 120_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    (
        "grpc.service_config",
        json.dumps(
            {
                # One name may stand for several control planes.
                "loadBalancingConfig": [{"round_robin": {}}],
                "methodConfig": [
                    {
                        "name": [
                            {"service": service, "method": method}
                            for service, methods in _REPEATABLE.items()
                            for method in methods
                        ],
                        "retryPolicy": {
                            "maxAttempts": 4,
                            "initialBackoff": "0.1s",
                            "maxBackoff": "1s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"],
                        },
                    }
                ],
            }
        ),
    ),
)


def client_options(address: str) -> tuple[tuple[str, int | str], ...]:
    """The options of a client's channel. No proxy reaches this machine's own loopback."""
    inside = all(map(is_loopback, hosts_of(address)))
    return (*CLIENT_OPTIONS, *WITHOUT_PROXY) if inside else CLIENT_OPTIONS


def proxy_of(address: str, environ: Mapping[str, str]) -> str:
    """The variable whose proxy a client's calls go through, such as http_proxy; empty: none."""
    hosts = hosts_of(address)
    if not hosts or all(map(is_loopback, hosts)):
        return ""
    variable = next((name for name in PROXY if environ.get(name)), "")
    spared = next((environ[name] for name in NO_PROXY if environ.get(name)), "")
    ends = tuple(end.strip() for end in spared.split(",") if end.strip())
    return "" if ends and hosts[0].endswith(ends) else variable


def hosts_of(address: str) -> list[str]:
    """The hosts in a gRPC address, such as host:port, dns:///host:port or ipv4:1.2.3.4:5,6.7.8.9:5;
    none in that of a socket of this machine.
    """
    scheme, colon, rest = address.partition(":")
    if scheme in ("unix", "unix-abstract", "vsock"):
        return []
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        address = rest.rpartition("/")[2]
    return [_host(part) for part in address.split(",")]


def _host(place: str) -> str:
    if place.startswith("["):
        return place[1:].partition("]")[0]
    # An IPv6 address without brackets has no port.
    return place if place.count(":") > 1 else place.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a port bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(hosts: Iterable[str], has_tls: bool, insecure: bool) -> None:
    """Raises ValueError for ports that others can reach, and whose calls they could read."""
    open_to = [host for host in hosts if not is_loopback(host)]
    if open_to and not has_tls and not insecure:
        raise ValueError(
            f"{open_to[0]} is reached from other machines: give this process a certificate "
            "(--tls-cert, --tls-key; 'yolopool certs' makes one), or say --insecure"
        )


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    """The metadata that says who calls, by an API key or a token; of neither, none."""
    return (("authorization", f"Bearer {text}"),) if text else ()


def address_of(address: str | None) -> str:
    """The given address, else YOLOPOOL_ADDRESS, else the default port of this machine."""
    return address or os.environ.get("YOLOPOOL_ADDRESS") or DEFAULT_ADDRESS
