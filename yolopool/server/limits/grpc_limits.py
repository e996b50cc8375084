"""What one caller of a gRPC port may take: bytes, calls, connections, seconds."""

from dataclasses import dataclass

from yolopool.vocabulary import MAX_MESSAGE_BYTES

# Of gRPC: a message as it is, not packed. One that is packed may unpack to a thousand times its
# size, which gRPC does before it looks at any limit.
_IDENTITY_ALONE = 1
MAX_METADATA_BYTES = 32 * 1024
KEEPALIVE_S, KEEPALIVE_TIMEOUT_S, MIN_PING_INTERVAL_S = 60.0, 20.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLimits:
    """Sizes are bytes; 0 is no limit of our own.

    `max_calls` and the keep-alive are of one connection. `message_timeout_s`: in which the message
    of a call must arrive, and its answer be taken. After `connection_age_s` callers are asked to
    connect anew, so that they spread over servers that were started since; open calls go on.
    `max_memory_bytes` of the process: beyond it, calls whose message is on its way are cut off.
    """

    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_metadata_bytes: int = MAX_METADATA_BYTES
    max_calls: int = 0
    max_connections: int = 0
    max_memory_bytes: int = 0
    handshake_timeout_s: float = 10.0
    message_timeout_s: float = 60.0
    idle_s: float = 300.0
    connection_age_s: float = 0.0
    # The server asks whether a silent peer is there; a peer may ask at most so often.
    keepalive_s: float = KEEPALIVE_S
    keepalive_timeout_s: float = KEEPALIVE_TIMEOUT_S
    min_ping_interval_s: float = MIN_PING_INTERVAL_S
    max_ping_strikes: int = 2

    def options(self) -> tuple[tuple[str, int], ...]:
        """As a gRPC server takes them."""
        always = {
            "grpc.max_receive_message_length": self.max_message_bytes,
            "grpc.max_send_message_length": self.max_message_bytes,
            "grpc.max_metadata_size": self.max_metadata_bytes,
            "grpc.absolute_max_metadata_size": self.max_metadata_bytes,
            "grpc.compression_enabled_algorithms_bitset": _IDENTITY_ALONE,
            # A busy port is an error; otherwise two servers would share its calls.
            "grpc.so_reuseport": 0,
            "grpc.server_handshake_timeout_ms": _ms(self.handshake_timeout_s),
            "grpc.max_connection_idle_ms": _ms(self.idle_s),
            "grpc.keepalive_time_ms": _ms(self.keepalive_s),
            "grpc.keepalive_timeout_ms": _ms(self.keepalive_timeout_s),
            "grpc.keepalive_permit_without_calls": 1,
            "grpc.http2.min_ping_interval_without_data_ms": _ms(self.min_ping_interval_s),
            "grpc.http2.max_ping_strikes": self.max_ping_strikes,
        }
        own = {
            "grpc.max_concurrent_streams": self.max_calls,
            "grpc.max_allowed_incoming_connections": self.max_connections,
            "grpc.max_connection_age_ms": _ms(self.connection_age_s),
        }
        return (*always.items(), *((name, value) for name, value in own.items() if value))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
