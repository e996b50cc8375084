"""An id of a worker is of one certificate, on whatever host and device its process is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.convert.validation import WORKER_ID
from yolopool.tls.worker_ids import base, names_of, owned_by

WORDS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", fullmatch=True)
# The longest that devices have.
DEVICE = "cuda-MIG-5b3e4bd5-7a1c-4c7e-9f0e-1d2c3b4a5968"


@pytest.mark.parametrize(
    ("worker_id", "own"),
    [
        ("gpu-1", "gpu-1"),
        ("gpu-1-cuda-GPU-5b3e", "gpu-1"),
        ("gpu-1.example-cpu", "gpu-1.example"),
        ("10.0.0.3-cpu-0", "10.0.0.3"),
        ("rack-7-cpu", "rack-7"),  # the first label of a host
        ("gpu-10", ""),
        ("gpu-1x-cpu", ""),
        ("gpu", ""),
        ("GPU-1-cpu", ""),
        ("xgpu-1-cpu", ""),
        ("10-cpu", ""),  # an address has no labels
        ("localhost-cpu", ""),
        ("127.0.0.1-cpu", ""),
        ("pods-cpu", ""),
        ("", ""),
    ],
)
def test_an_id_is_a_name_or_begins_with_one_and_a_dash(worker_id: str, own: str) -> None:
    hosts = ("gpu-1.example", "rack-7.berlin.example", "10.0.0.3", "::1", "localhost", "127.0.0.1")
    names = names_of("gpu-1", (*hosts, "*.pods.example"))
    assert owned_by(worker_id, names) == own


@given(WORDS, WORDS)
def test_a_worker_without_an_id_of_its_own_gets_one_of_its_certificate(
    name: str, host: str
) -> None:
    worker_id = f"{base(host, (name,))}-{DEVICE}"
    assert owned_by(worker_id, (name,)) == name
    assert WORKER_ID.fullmatch(worker_id)


@given(WORDS, st.lists(WORDS, min_size=2, max_size=2, unique=True))
def test_hosts_that_share_a_certificate_have_other_ids(name: str, hosts: list[str]) -> None:
    one, other = (base(host, (name,)) for host in hosts)
    assert one != other


def test_without_a_certificate_and_with_one_of_the_host_an_id_is_as_before() -> None:
    assert base("gpu-1", ()) == base("gpu-1", ("gpu-1",)) == "gpu-1"
    assert base("gpu-1-a", ("gpu-1",)) == "gpu-1-a"
    assert base("ip-10-0-0-3", ("gpu-1", "10.0.0.3")) == "gpu-1-ip-10-0-0-3"
    assert re.fullmatch(r"gpu-1-h{59}[0-9a-f]{8}", base("h" * 70, ("gpu-1",)))
