"""Every method of a control plane is forwarded to the leader, or says why it is not."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import MethodDescriptor

from control_plane.leader.forwarding import FORWARDED, SERVED_LOCALLY
from control_plane.services.register import SERVICES
from yolopool.v1 import (
    aliases_pb2,
    bench_pb2,
    certificates_pb2,
    detection_pb2,
    events_pb2,
    explain_pb2,
    families_pb2,
    fleet_pb2,
    importing_pb2,
    keys_pb2,
    membership_pb2,
    model_pb2,
    peer_pb2,
    schedule_pb2,
    tenants_pb2,
)

PROTOS = (
    aliases_pb2, bench_pb2, certificates_pb2, detection_pb2, events_pb2, explain_pb2, families_pb2,
    fleet_pb2, importing_pb2, keys_pb2, membership_pb2, model_pb2, peer_pb2, schedule_pb2,
    tenants_pb2,
)  # fmt: skip


def methods() -> Iterator[MethodDescriptor]:
    for proto in PROTOS:
        for service in proto.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def test_the_protos_are_those_of_all_services_of_a_control_plane() -> None:
    assert {method.containing_service.full_name for method in methods()} == set(SERVICES)


def test_each_method_is_forwarded_or_says_why_it_is_served_locally() -> None:
    """A new method fails here until somebody decides which of the two it is."""
    assert FORWARDED.isdisjoint(SERVED_LOCALLY)
    assert FORWARDED | SERVED_LOCALLY.keys() == {path(method) for method in methods()}
    assert all(SERVED_LOCALLY.values())


@pytest.mark.parametrize(
    "verb",
    [
        "Set", "Delete", "Register", "Load", "Unload", "Build", "Drain", "Create", "Rotate",
        "Revoke", "Promote", "Rollback",
    ],
)  # fmt: skip
def test_what_changes_desired_state_is_forwarded(verb: str) -> None:
    writes = [path(method) for method in methods() if method.name.startswith(verb)]
    assert writes
    # Of this one the leader need not have the key.
    signed = "/yolopool.v1.CertificateService/CreateJoinToken"
    assert set(writes) - {signed} <= FORWARDED


def test_what_is_forwarded_is_one_message_each_way() -> None:
    for method in methods():
        streams = method.client_streaming or method.server_streaming
        assert not (streams and path(method) in FORWARDED)
