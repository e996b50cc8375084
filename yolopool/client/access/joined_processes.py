"""Processes that join with a token: their records for callers, and the calls about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from yolopool.client.calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, Call
from yolopool.v1 import certificates_pb2 as pb


@dataclass(frozen=True, slots=True)
class JoinedProcess:
    """A join token, or the process that used it; times in Unix seconds, 0: none.

    `expires_unix_s` is the end of a token that was not used, `until_unix_s` that of the process's
    newest certificate.
    """

    id: str
    name: str
    role: str
    hosts: tuple[str, ...]
    created_unix_s: float
    expires_unix_s: float
    joined_unix_s: float
    until_unix_s: float
    revoked_unix_s: float


@dataclass(frozen=True, slots=True)
class IssuedJoinToken:
    """A token, which can't be read again. Its repr does not tell it."""

    process: JoinedProcess
    token: str

    def __repr__(self) -> str:
        return f"IssuedJoinToken({self.process!r})"


def create_join_token(
    name: str = "", *, role: str = "worker", hosts: Sequence[str] = (), lifetime_s: float = 0.0
) -> Call[IssuedJoinToken]:
    """Makes a token with which one worker or importer gets its first certificate.

    `name`: that of the process; empty: it says its own. `hosts`: names and addresses under which
    control planes reach it; none: the address that it joins from. `lifetime_s`: 0: 15 minutes.
    """
    request = pb.CreateJoinTokenRequest(role=role, name=name, hosts=hosts, lifetime_s=lifetime_s)
    return Call(
        "certificates",
        "CreateJoinToken",
        request,
        CHANGE_TIMEOUT_S,
        lambda reply: IssuedJoinToken(_process(reply.process), reply.token),
    )


def certificates() -> Call[tuple[JoinedProcess, ...]]:
    """The join tokens that were not used yet, and the processes that joined, newest first."""
    request = pb.ListCertificatesRequest()
    return Call("certificates", "ListCertificates", request, READ_TIMEOUT_S, _processes)


def revoke_certificate(name: str) -> Call[tuple[JoinedProcess, ...]]:
    """Ends the certificates of a process, by its name or id, or a join token, by its id."""
    request = pb.RevokeCertificateRequest(name=name)
    return Call("certificates", "RevokeCertificate", request, CHANGE_TIMEOUT_S, _processes)


def _processes(
    reply: pb.ListCertificatesResponse | pb.RevokeCertificateResponse,
) -> tuple[JoinedProcess, ...]:
    return tuple(map(_process, reply.processes))


def _process(process: pb.JoinedProcess) -> JoinedProcess:
    return JoinedProcess(
        process.id,
        process.name,
        process.role,
        tuple(process.hosts),
        process.created_unix_s,
        process.expires_unix_s,
        process.joined_unix_s,
        process.until_unix_s,
        process.revoked_unix_s,
    )
