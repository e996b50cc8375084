"""How a process gets a certificate with a join token, and renews it before it expires.

For workers and importers. The token has the certificate of the authority, so that the secret in it
is sent to no control plane that the authority does not vouch for.
"""

import asyncio
import base64
import binascii
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from yolopool.errors import FailedPrecondition, Unavailable, YolopoolError
from yolopool.status import error_from_rpc
from yolopool.tls import authority, signing
from yolopool.tls.certificates import Certificates, TlsFiles
from yolopool.transport import MESSAGE_SIZE_OPTIONS, WITHOUT_PROXY, bearer
from yolopool.v1 import certificates_pb2, certificates_pb2_grpc

log = structlog.get_logger()

CALL_S = 10.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
# Of a certificate's life: it is renewed after so much of it.
RENEWED_AFTER = 2 / 3
# One that ends sooner is as good as none.
LEFT_S = 1.0


@dataclass(frozen=True, slots=True)
class JoinToken:
    """An API key that is good for one call, and the authority's certificate, DER. Its repr does not
    tell the key.
    """

    api_key: str
    authority: bytes

    def __repr__(self) -> str:
        return "JoinToken(...)"

    @property
    def text(self) -> str:
        """As files have it."""
        return f"{self.api_key}.{base64.urlsafe_b64encode(self.authority).decode().rstrip('=')}"


def parsed(text: str) -> JoinToken:
    """Raises FailedPrecondition if it is none."""
    api_key, _, rest = text.strip().partition(".")
    try:
        der = base64.b64decode(rest + "=" * (-len(rest) % 4), b"-_", validate=True)
        x509.load_der_x509_certificate(der)
    except (binascii.Error, ValueError) as error:
        raise FailedPrecondition(
            "the join token is none, or a part of one: copy it whole"
        ) from error
    return JoinToken(api_key, der)


@dataclass(frozen=True, slots=True)
class Joining:
    """Where a process keeps its certificate, and how it gets one. `token_file` may be gone once it
    has joined. `at`: control planes' ports for callers, where the token is shown.
    """

    folder: Path
    token_file: Path
    name: str
    at: Sequence[str]

    @property
    def files(self) -> TlsFiles:
        """Certificate and key are one file, so that both change at once."""
        own = self.folder / "own.pem"
        return TlsFiles(self.folder / "ca.pem", own, own)


async def join(joining: Joining, now: float) -> TlsFiles:
    """The files of a certificate that is valid: those of before, or with the token new ones. Goes
    on trying while no control plane answers. Raises OSError, and errors that trying again does not
    help: FailedPrecondition, CredentialsInvalid.
    """
    if _valid_until(joining.files) > now + LEFT_S:
        return joining.files
    token = parsed(await asyncio.to_thread(_read_token, joining.token_file))
    root = x509.load_der_x509_certificate(token.authority).public_bytes(serialization.Encoding.PEM)
    key = ec.generate_private_key(ec.SECP256R1())
    request = certificates_pb2.IssueCertificateRequest(request=_request(key), name=joining.name)
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            credentials = grpc.ssl_channel_credentials(root)
            metadata = bearer(token.api_key)
            answer = await _ask(joining.at, credentials, "IssueCertificate", request, metadata)
            break
        except Unavailable as error:
            log.info("not joined yet", why=error.message, again_in_s=round(pause_s, 1))
        await asyncio.sleep(pause_s * (0.5 + random.random()))
        pause_s = min(MAX_PAUSE_S, 2 * pause_s)
    await asyncio.to_thread(_keep, joining.files, key, answer)
    assert joining.files.certificate is not None, "it was just written"
    name = authority.shown(joining.files.certificate).subject
    log.info("this process has a certificate", name=name, until_unix_s=answer.until_unix_s)
    return joining.files


@asynccontextmanager
async def membership(
    joining: Joining, control_planes: Sequence[str], clock: Callable[[], float]
) -> AsyncIterator[TlsFiles]:
    """The files of a certificate that is renewed while the context is open; see `join`."""
    files = await join(joining, clock())
    renewing = asyncio.create_task(keep_renewed(files, control_planes, clock), name="renew")
    try:
        yield files
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def keep_renewed(
    files: TlsFiles, control_planes: Sequence[str], clock: Callable[[], float]
) -> None:
    """Renews a certificate whenever two thirds of its life are over. `control_planes`: their ports
    for the pool. `clock()`: Unix seconds. Does not return; one that could not be renewed is tried
    again until it has expired, and after that.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        begins, ends = _life(files)
        wait_s = begins + (ends - begins) * RENEWED_AFTER - clock()
        if wait_s > 0:
            await asyncio.sleep(min(wait_s, 3600.0))
            continue
        try:
            await _renew(files, control_planes)
            pause_s = FIRST_PAUSE_S
            log.info("certificate renewed", until_unix_s=_valid_until(files))
        except (YolopoolError, OSError) as error:
            left_s = round(ends - clock(), 1)
            say = log.warning if left_s > 0 else log.error
            say("the certificate is not renewed", why=str(error), expires_in_s=left_s)
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(MAX_PAUSE_S, 2 * pause_s)


async def _renew(files: TlsFiles, control_planes: Sequence[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = certificates_pb2.RenewCertificateRequest(request=_request(key))
    try:
        credentials = Certificates(files).of_client()
    except ValueError as error:
        raise FailedPrecondition(str(error)) from error
    answer = await _ask(control_planes, credentials, "RenewCertificate", request, ())
    await asyncio.to_thread(_keep, files, key, answer)


async def _ask(
    addresses: Sequence[str],
    credentials: grpc.ChannelCredentials,
    method: str,
    request: Any,
    metadata: Sequence[tuple[str, str]],
) -> Any:
    """The answer of the first control plane that gives one; the last error if none does. One that
    has not the authority's key is passed over.
    """
    failed: YolopoolError = Unavailable("there is no control plane to ask")
    for address in addresses:
        options = (*MESSAGE_SIZE_OPTIONS, *WITHOUT_PROXY)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            stub: Any = certificates_pb2_grpc.CertificateServiceStub(channel)
            try:
                return await getattr(stub, method)(request, timeout=CALL_S, metadata=metadata)
            except grpc.RpcError as error:
                failed = error_from_rpc(error)
                if not isinstance(failed, Unavailable | FailedPrecondition):
                    raise failed from error
    raise failed


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Of no name: which it gets, the control plane knows."""
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"this process has no valid certificate, and {path} holds no join token: an admin "
            "makes one with 'yolopool certs join-token'"
        ) from error


def _keep(files: TlsFiles, key: ec.EllipticCurvePrivateKey, answer: Any) -> None:
    assert files.authority is not None, "a process that joins has an authority"
    assert files.certificate is not None, "and a certificate"
    files.authority.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not files.authority.exists() or files.authority.read_bytes() != answer.authority:
        authority.write(files.authority, answer.authority, 0o644)
    authority.write(files.certificate, authority.pem(key) + answer.certificate)


def _life(files: TlsFiles) -> tuple[float, float]:
    """Begin and end of the certificate, Unix seconds; of none, none."""
    try:
        assert files.certificate is not None, "a process that joins has a certificate"
        found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (FileNotFoundError, ValueError):
        return 0.0, 0.0
    begins = found.not_valid_before_utc + signing.SKEW
    return begins.timestamp(), found.not_valid_after_utc.timestamp()


def _valid_until(files: TlsFiles) -> float:
    return _life(files)[1]
