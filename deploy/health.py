"""Exit status 0 if the gRPC server at host:port says SERVING: the health check of the images.

Of a port that speaks TLS: HEALTH_CA is its authority's certificate, HEALTH_HOST a host in its own.
HEALTH_CERT and HEALTH_KEY are a worker's own: its port lets only holders of a certificate in.
"""

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

WITHOUT_PROXY = ("grpc.enable_http_proxy", 0)


def channel(address: str) -> grpc.Channel:
    ca, certificate, key = map(_read, ("HEALTH_CA", "HEALTH_CERT", "HEALTH_KEY"))
    if ca is None:
        return grpc.insecure_channel(address, [WITHOUT_PROXY])
    host = os.environ.get("HEALTH_HOST") or address.rpartition(":")[0]
    options = [WITHOUT_PROXY, ("grpc.ssl_target_name_override", host)]
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(address, credentials, options)


def _read(variable: str) -> bytes | None:
    path = os.environ.get(variable)
    return Path(path).read_bytes() if path else None


def main() -> int:
    with channel(sys.argv[1]) as asked:
        try:
            answer = health_pb2_grpc.HealthStub(asked).Check(
                health_pb2.HealthCheckRequest(), timeout=3
            )
        except grpc.RpcError as error:
            print(error, file=sys.stderr)  # noqa: T201 - the container runtime keeps it
            return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
