"""Which hosts an address names, and whether a proxy stands before them."""

import pytest

from yolopool.transport import client_options, hosts_of, is_loopback, proxy_of

SET = {"http_proxy": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True), ("127.8.0.1", True), ("localhost", True), ("::1", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("pool", False),
    ],
)  # fmt: skip
def test_loopback(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("pool:50051", ["pool"]),
        ("pool", ["pool"]),
        ("10.0.0.1:50051", ["10.0.0.1"]),
        ("[::1]:50051", ["::1"]),
        ("::1", ["::1"]),
        ("dns:///pool:50051", ["pool"]),
        ("dns:pool:50051", ["pool"]),
        ("dns://8.8.8.8/pool:50051", ["pool"]),
        ("ipv4:10.0.0.1:5,10.0.0.2:5", ["10.0.0.1", "10.0.0.2"]),
        ("ipv6:[::1]:5", ["::1"]),
        ("unix:/run/pool.sock", []),
        ("unix-abstract:pool", []),
    ],
)
def test_hosts_of_an_address(address: str, hosts: list[str]) -> None:
    assert hosts_of(address) == hosts


@pytest.mark.parametrize(
    ("address", "environ", "variable"),
    [
        ("pool:50051", {}, ""),
        ("pool:50051", SET, "http_proxy"),
        ("pool:50051", {"HTTP_PROXY": "http://proxy:3128"}, ""),  # not read by gRPC
        ("pool:50051", {**SET, "grpc_proxy": "http://p:1", "https_proxy": "http://p:2"},
         "grpc_proxy"),
        ("pool:50051", {**SET, "grpc_proxy": ""}, "http_proxy"),
        ("pool.example.org:50051", {**SET, "no_proxy": "localhost, example.org"}, ""),
        ("pool:50051", {**SET, "no_proxy": "other"}, "http_proxy"),
        ("pool:50051", {**SET, "no_grpc_proxy": "other", "no_proxy": "pool"}, "http_proxy"),
        ("127.0.0.1:50051", SET, ""),
        ("localhost:50051", SET, ""),
        ("[::1]:50051", SET, ""),
        ("unix:/run/pool.sock", SET, ""),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", SET, "http_proxy"),
    ],
)  # fmt: skip
def test_the_variable_of_the_proxy(address: str, environ: dict[str, str], variable: str) -> None:
    assert proxy_of(address, environ) == variable
    without = dict(client_options(address)).get("grpc.enable_http_proxy") == 0
    assert not (without and variable)
