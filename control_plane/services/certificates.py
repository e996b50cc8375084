"""CertificateService: workers and importers get certificates with join tokens, and renew them."""

import asyncio
import datetime
import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import structlog
from cryptography.hazmat.primitives import serialization

from control_plane.caller import CallContext, principal_of
from control_plane.identity import key_secrets
from control_plane.settings import Settings
from control_plane.store.registry import DesiredState
from control_plane.types.access.api_key import ApiKey, Joining, Role
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import (
    CertificateNotFound,
    CredentialsInvalid,
    FailedPrecondition,
    InvalidOption,
)
from yolopool.masking import masked
from yolopool.server.clock import Clock
from yolopool.tls import signing
from yolopool.tls.authority import shown
from yolopool.tls.certificates import peer_of
from yolopool.tls.joining import JoinToken
from yolopool.tls.worker_ids import owned_by
from yolopool.v1 import certificates_pb2 as pb
from yolopool.v1 import certificates_pb2_grpc

log = structlog.get_logger()

TOKEN_S, MAX_TOKEN_S = 900.0, 7 * 86_400.0
# Tokens and processes that ended are still listed, and in the registry, for so long.
ENDED_KEPT_S = 30 * 86_400.0
MAX_PROCESSES = 10_000
# Names that people take for a control plane's, with all that begin with one and a dash: no process
# may choose them itself. An admin may give them.
RESERVED = ("control-plane", "plane")


class CertificateService(certificates_pb2_grpc.CertificateServiceServicer):
    """With the settings' `tls_ca_key` it signs. Raises OSError and ValueError for files that can't
    be used.
    """

    def __init__(
        self,
        settings: Settings,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._clock = clock
        self._lifetime = datetime.timedelta(seconds=settings.joined_certificate_s)
        self._trusted: Path | None = settings.tls_ca
        self._own: Path | None = settings.tls_cert
        self._signer: signing.Authority | None = None
        if settings.tls_ca_key is not None and settings.tls_ca is not None:
            self._signer = signing.read(settings.tls_ca, settings.tls_ca_key)

    async def CreateJoinToken(
        self, request: pb.CreateJoinTokenRequest, context: CallContext
    ) -> pb.CreateJoinTokenResponse:
        now, authority = self._clock.unix(), self._authority()
        if await self._forget_ended(now) >= MAX_PROCESSES:
            raise InvalidOption(f"there are {MAX_PROCESSES} processes: revoke those that are gone")
        secret = key_secrets.new_secret()
        key = ApiKey(
            id=secret.id,
            label="join token",
            tenant="",
            role=Role.JOIN,
            grants=(),
            secrets=(await asyncio.to_thread(key_secrets.hashed, secret),),
            created_unix_s=now,
            expires_unix_s=now + _lifetime_s(request.lifetime_s),
            joins=_asked(request),
        )
        await self._registry.put_api_key(key)
        await self._refresh()
        log.info("join token made", key=key.id, by=principal_of(context).name)
        token = JoinToken(secret.text, authority.der)
        return pb.CreateJoinTokenResponse(process=_out(key), token=token.text)

    async def IssueCertificate(
        self, request: pb.IssueCertificateRequest, context: CallContext
    ) -> pb.IssueCertificateResponse:
        now, id_ = self._clock.unix(), principal_of(context).name.removeprefix("key:")
        authority, public_key = self._authority(), signing.requested_key(request.request)
        held = self._view.desired.api_keys.get(id_)
        if held is None or held.joins is None:
            raise CredentialsInvalid("this takes a join token, and the call has another key")
        joins = held.joins
        _check_signs(joins.role)
        name = signing.check_process_name(joins.name or request.name)
        hosts = joins.hosts or (_address_of(context),)
        self._check_free(name, id_, now)
        if not joins.name:
            await self._check_not_anothers(name, id_, now)
        signed = authority.signed(
            public_key, name, joins.role, hosts, self._lifetime, now, joined=id_
        )
        until = signed.not_valid_after_utc.timestamp()

        def use(key: ApiKey) -> ApiKey:
            """Where it is decided, so that of two calls with one token one alone is answered."""
            if not key.valid_secrets(now):
                raise CredentialsInvalid("the join token was used, was revoked or has expired")
            return key.joined(name, hosts, now, until)

        if await self._registry.change_api_key(id_, use) is None:
            raise CredentialsInvalid("the join token is not known")
        await self._refresh()
        log.info("joined", name=name, role=joins.role, hosts=hosts, key=id_)
        return pb.IssueCertificateResponse(
            certificate=_pem(signed), authority=await self._trusted_pem(), until_unix_s=until
        )

    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: CallContext
    ) -> pb.RenewCertificateResponse:
        now, peer = self._clock.unix(), peer_of(context)
        authority, public_key = self._authority(), signing.requested_key(request.request)
        key = self._view.desired.api_keys.get(peer.joined) if peer is not None else None
        if peer is None or key is None or key.joins is None or not key.joins.joined_unix_s:
            raise FailedPrecondition(
                "this process did not join with a token: its certificate is issued anew where it "
                "was made"
            )
        joins = key.joins
        if key.revoked_unix_s or (peer.role, peer.name) != (joins.role, joins.name):
            raise CredentialsInvalid("the certificate was revoked: join with another token")
        _check_signs(joins.role)
        signed = authority.signed(
            public_key, joins.name, joins.role, joins.hosts, self._lifetime, now, joined=key.id
        )
        until = signed.not_valid_after_utc.timestamp()

        def note(held: ApiKey) -> ApiKey:
            if held.revoked_unix_s:
                raise CredentialsInvalid("the certificate was revoked: join with another token")
            return held.renewed(until)

        if await self._registry.change_api_key(key.id, note) is None:
            raise CredentialsInvalid("this process is not known any more: join with another token")
        log.info("certificate renewed", name=joins.name, key=key.id)
        return pb.RenewCertificateResponse(
            certificate=_pem(signed), authority=await self._trusted_pem(), until_unix_s=until
        )

    async def ListCertificates(
        self, request: pb.ListCertificatesRequest, context: CallContext
    ) -> pb.ListCertificatesResponse:
        newest_first = sorted(self._joined(), key=lambda key: (-key.created_unix_s, key.id))
        return pb.ListCertificatesResponse(processes=map(_out, newest_first))

    async def RevokeCertificate(
        self, request: pb.RevokeCertificateRequest, context: CallContext
    ) -> pb.RevokeCertificateResponse:
        now, asked = self._clock.unix(), request.name
        named = [
            key
            for key in self._joined()
            if asked and key.joins is not None and asked in (key.id, key.joins.name)
        ]
        if not named:
            raise CertificateNotFound(
                f"no process that joined has the name {masked(asked)[:80]!r}: see "
                "'yolopool certs list'; what 'certs issue' made ends when it expires"
            )
        ended = []
        for key in named:
            revoked = await self._registry.change_api_key(key.id, lambda held: held.revoked(now))
            if revoked is not None:
                ended.append(_out(revoked))
                log.info("revoked", key=key.id, by=principal_of(context).name)
        await self._refresh()
        return pb.RevokeCertificateResponse(processes=ended)

    def _authority(self) -> signing.Authority:
        if self._signer is None:
            raise FailedPrecondition(
                "this control plane has not the key of the authority: start it with --tls-ca-key, "
                "or ask one that has it"
            )
        return self._signer

    async def _trusted_pem(self) -> bytes:
        """What the processes trust now: the file may have been changed."""
        assert self._trusted is not None, "an authority's key goes with its certificate"
        return await asyncio.to_thread(self._trusted.read_bytes)

    def _joined(self) -> list[ApiKey]:
        return [key for key in self._view.desired.api_keys.values() if key.joins is not None]

    def _check_free(self, name: str, id_: str, now: float) -> None:
        """Raises FailedPrecondition if another process has the name."""
        others = [key.id for key in self._joined() if key.id != id_ and key.holds(name, now)]
        if others:
            raise FailedPrecondition(
                f"another process joined as {name}: if it is gone, revoke {others[0]} "
                "('yolopool certs revoke'), and join with another token"
            )

    async def _check_not_anothers(self, name: str, id_: str, now: float) -> None:
        """Raises FailedPrecondition for a name that a process chose itself, and by which it would
        pass for a control plane, or could speak for another's workers (`worker_ids`).
        """
        own = (await asyncio.to_thread(shown, self._own)).subject if self._own is not None else ""
        if name == own or owned_by(name, RESERVED):
            raise FailedPrecondition(
                f"{name!r} is kept for control planes: give the process a --join-name, or make a "
                "token with a name"
            )
        monotonic = self._clock.monotonic()
        taken = [
            *(
                key.joins.name
                for key in self._joined()
                if key.joins is not None and key.id != id_ and key.holds(key.joins.name, now)
            ),
            *(one.id for one in self._view.workers.values() if one.is_here(monotonic)),
        ]
        of_others = [one for one in taken if owned_by(one, (name,))]
        if of_others:
            raise FailedPrecondition(
                f"{name!r} is a name of {of_others[0]}, which is in the pool: give the process a "
                "--join-name, or make a token with this name"
            )

    async def _forget_ended(self, now: float) -> int:
        """Removes what ended long ago. Returns how many are left."""
        keys = self._joined()
        ended = [key for key in keys if key.ends_unix_s + ENDED_KEPT_S < now]
        for key in ended:
            await self._registry.drop_api_key(key.id)
        return len(keys) - len(ended)


def _check_signs(role: Role) -> None:
    """Raises FailedPrecondition, after which a process asks the next control plane."""
    if role is not Role.WORKER:
        raise FailedPrecondition(
            f"this control plane signs for workers, and not for the role {masked(role)[:40]}: ask "
            "one of a newer release"
        )


def _asked(request: pb.CreateJoinTokenRequest) -> Joining:
    if request.role != Role.WORKER:
        raise InvalidOption(f"role is {request.role[:40]!r}: a process joins as worker")
    if request.name:
        signing.check_process_name(request.name)
    hosts = tuple(dict.fromkeys(request.hosts))
    if len(hosts) > signing.MAX_HOSTS:
        raise InvalidOption(f"hosts: at most {signing.MAX_HOSTS}")
    for host in hosts:
        signing.general_name(host)
    return Joining(Role.WORKER, request.name, hosts)


def _lifetime_s(asked_s: float) -> float:
    if not (math.isfinite(asked_s) and 0.0 <= asked_s <= MAX_TOKEN_S):
        raise InvalidOption(f"lifetime_s is {asked_s:g}: give at most {MAX_TOKEN_S:g} seconds")
    return asked_s or TOKEN_S


def _address_of(context: Any) -> str:
    """The address that a call came from. Raises InvalidOption if it has none."""
    kind, _, rest = str(context.peer()).partition(":")
    address = unquote(rest).rpartition(":")[0].strip("[]")
    if kind not in ("ipv4", "ipv6") or not address:
        raise InvalidOption("the process has no address: make a token that names its hosts")
    return address


def _pem(certificate: Any) -> bytes:
    found: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return found


def _out(key: ApiKey) -> pb.JoinedProcess:
    assert key.joins is not None, "it is a join token"
    return pb.JoinedProcess(
        id=key.id,
        name=key.joins.name,
        role=key.joins.role,
        hosts=key.joins.hosts,
        created_unix_s=key.created_unix_s,
        expires_unix_s=key.expires_unix_s,
        joined_unix_s=key.joins.joined_unix_s,
        until_unix_s=key.joins.until_unix_s,
        revoked_unix_s=key.revoked_unix_s,
    )
