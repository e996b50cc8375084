from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SCHEMES, parse
from yolopool.errors import SourceRefused


def rules(**more: Any) -> SourceRules:
    return SourceRules(**{"schemes": SCHEMES, **more})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1", "64:ff9b:1:a00:1::808:808",
        "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "fec0::1",
    ],
)  # fmt: skip
def test_what_is_not_of_the_public_internet_is_refused(address: str) -> None:
    with pytest.raises(SourceRefused) as refused:
        rules().check_addresses("h", [ip_address("8.8.8.8"), ip_address(address)])
    assert address not in refused.value.message  # the caller learns no address of the network


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_reached(address: str) -> None:
    rules().check_addresses("h", [ip_address(address)])


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_an_allowed_network_is_reached_and_no_other(address: Any) -> None:
    one = rules(private_networks=(ip_network("10.1.0.0/16"),))
    if address in ip_network("10.1.0.0/16"):
        one.check_addresses("h", [address])
    else:
        with pytest.raises(SourceRefused):
            one.check_addresses("h", [address])


def test_a_literal_address_needs_no_look_up() -> None:
    for text in ("http://169.254.169.254/latest", "http://[::1]/a", "http://[::ffff:10.0.0.1]/a"):
        with pytest.raises(SourceRefused):
            rules().check(parse(text))
    rules().check(parse("https://8.8.8.8/best.pt"))


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("https://h/a.pt", {"schemes": frozenset({"s3"})}),
        ("https://h/a.pt", {"hosts": ("*.example.com",)}),
        ("https://a.example.com/a.pt", {"hosts": ("*.example.com",), "denied_hosts": ("a.*",)}),
        ("s3://secret/a.pt", {"hosts": ("models-*",)}),
        ("file:///etc/shadow", {}),
        ("file:///models-other/a.pt", {"roots": ("/models",)}),
    ],
)
def test_what_is_not_allowed_is_refused(text: str, more: dict[str, Any]) -> None:
    with pytest.raises(SourceRefused):
        rules(**more).check(parse(text))


def test_what_is_allowed_passes() -> None:
    one = rules(
        hosts=("*.example.com", "models-*"), roots=("/models",), profiles=frozenset({"minio"})
    )
    for text in ("https://a.example.com/a.pt", "s3://models-7/a.pt", "file:///models/a.pt"):
        one.check(parse(text))
    one.check(parse("s3://models-7/a.pt"), "minio")


def test_a_profile_is_of_s3_and_allowed_by_name() -> None:
    one = rules(profiles=frozenset({"minio"}))
    for text, profile in (("s3://bucket/a.pt", "admin"), ("https://h/a.pt", "minio")):
        with pytest.raises(SourceRefused):
            one.check(parse(text), profile)
