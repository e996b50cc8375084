"""How a client reaches a pool, and what both ends of a connection agree on.

Standard library only: servers and clients both import it.
"""

import json
import os

from yolopool.vocabulary import MAX_MESSAGE_BYTES

DEFAULT_ADDRESS = "127.0.0.1:50051"
MESSAGE_SIZE_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
# Calls that change nothing: gRPC retries them while the pool is UNAVAILABLE and time is left.
_REPEATABLE = {
    "yolopool.v1.DetectionService": ("Detect",),
    "yolopool.v1.ModelService": ("ListModels", "GetModel"),
    "yolopool.v1.FleetService": ("ListWorkers", "GetFleet"),
    "yolopool.v1.EventService": ("WatchEvents",),
    "yolopool.v1.ExplainService": ("PlanLoad", "ExplainModel", "ExplainRequest"),
    "yolopool.v1.ScheduleService": ("ListSchedules",),
}
CLIENT_OPTIONS: tuple[tuple[str, int | str], ...] = (
    *MESSAGE_SIZE_OPTIONS,
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    (
        "grpc.service_config",
        json.dumps(
            {
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
                ]
            }
        ),
    ),
)


def address_of(address: str | None) -> str:
    """The given address, else YOLOPOOL_ADDRESS, else the default port of this machine."""
    return address or os.environ.get("YOLOPOOL_ADDRESS") or DEFAULT_ADDRESS
