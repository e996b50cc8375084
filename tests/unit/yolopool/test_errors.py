"""The error tree is whole: one reason a class, a code gRPC knows, and it survives the wire."""

import subprocess
import sys

import grpc
import pytest

from yolopool import errors, status
from yolopool.error_table import BY_CODE, BY_REASON, rebuild
from yolopool.errors import YolopoolError


def all_classes(root: type[YolopoolError] = YolopoolError) -> list[type[YolopoolError]]:
    """Of this tree; a process may have its own kinds of them."""
    children = [one for one in root.__subclasses__() if one.__module__ == errors.__name__]
    return [root, *(cls for child in children for cls in all_classes(child))]


def test_every_reason_names_one_class() -> None:
    leaves = [cls for cls in all_classes() if cls not in (YolopoolError, errors.Internal)]
    assert len({cls.reason for cls in leaves}) == len(leaves)


def test_kinds_of_one_process_are_never_sent() -> None:
    code = """
from yolopool.errors import RegistryUnavailable
class Emptied(RegistryUnavailable):
    def __init__(self): pass
from yolopool.error_table import BY_REASON
print(BY_REASON["REGISTRY_UNAVAILABLE"].__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "RegistryUnavailable\n"


@pytest.mark.parametrize("cls", all_classes())
def test_every_code_is_a_grpc_code(cls: type[YolopoolError]) -> None:
    assert cls.code in grpc.StatusCode.__members__
    assert cls.reason.isupper()


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_rebuild_gives_the_same_class(reason: str) -> None:
    cls = BY_REASON[reason]
    error = rebuild(cls.code, reason, "why", retryable=cls.retryable, retry_after_s=1.5)
    assert type(error) is (errors.Internal if reason == "INTERNAL" else cls)
    assert (error.reason, error.retryable, error.retry_after_s) == (reason, cls.retryable, 1.5)


def test_rebuild_keeps_a_reason_of_a_newer_release() -> None:
    error = rebuild("RESOURCE_EXHAUSTED", "QUOTA_SPENT", "later", retryable=False)
    assert isinstance(error, errors.ResourceExhausted)
    assert (error.reason, error.retryable) == ("QUOTA_SPENT", False)
    assert errors.ResourceExhausted.reason == "RESOURCE_EXHAUSTED"


def test_rebuild_trusts_the_code_over_a_reason_of_another_code() -> None:
    assert type(rebuild("NOT_FOUND", "QUEUE_FULL", "odd")) is errors.NotFound


def test_unknown_code_is_internal() -> None:
    assert type(rebuild("OUT_OF_RANGE", "OUT_OF_RANGE", "odd")) is errors.Internal
    assert "OUT_OF_RANGE" not in BY_CODE


class Cut(grpc.RpcError):
    """A call that a server's transport ended while the server was about to end."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "CANCELLED"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_a_call_that_a_server_cut_off_unheard_may_be_sent_again() -> None:
    error = status.error_from_rpc(Cut())
    assert (error.code, error.retryable) == ("UNAVAILABLE", True)
