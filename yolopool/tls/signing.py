"""The key of an authority, and the certificates of processes that it signs."""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from yolopool.errors import InvalidOption
from yolopool.tls.certificates import JOINED, SCHEME

ROLES = ("control-plane", "worker", "client")
# Clocks of a fleet differ.
SKEW = datetime.timedelta(minutes=5)
MAX_REQUEST_BYTES, MAX_HOSTS, MIN_RSA_BITS = 16 * 1024, 32, 2048
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that others trust, and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def signed(
        self,
        public_key: PublicKey,
        name: str,
        role: str,
        hosts: Sequence[str],
        lifetime: datetime.timedelta,
        now: float,
        joined: str = "",
    ) -> x509.Certificate:
        """A certificate of a process. `joined`: the id by which it can be revoked; empty: none.

        Raises InvalidOption for what is no name, role or host.
        """
        if role not in ROLES:
            raise InvalidOption(f"role is {role!r}: give one of {', '.join(ROLES)}")
        begins = datetime.datetime.fromtimestamp(now, datetime.UTC)
        ends = min(begins + lifetime, self.certificate.not_valid_after_utc)
        # All of the pool's processes are servers and clients of each other.
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        names = [
            x509.UniformResourceIdentifier(f"{SCHEME}://{role}/{check_process_name(name)}"),
            *([x509.UniformResourceIdentifier(f"{JOINED}://{joined}")] if joined else []),
            *map(general_name, hosts),
        ]
        hash_ = None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins - SKEW)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hash_)
        )


def read(certificates: Path, key: Path) -> Authority:
    """The authority whose key this is, among certificates in PEM. Raises OSError if a file can't be
    read, ValueError for what they hold.
    """
    private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    if not isinstance(private, PrivateKey):
        raise ValueError(f"{key} is of a kind that signs no certificates: give EC, RSA or Ed25519")
    for certificate in x509.load_pem_x509_certificates(certificates.read_bytes()):
        if certificate.public_key() == private.public_key():
            return Authority(certificate, private)
    raise ValueError(f"{key} is the key of no certificate in {certificates}")


def requested_key(request: bytes) -> PublicKey:
    """The key that a certificate is asked for, PKCS #10, DER. Nothing else of the request counts.
    Raises InvalidOption unless its signature shows that the caller has the other half.
    """
    if len(request) > MAX_REQUEST_BYTES:
        raise InvalidOption(f"request: at most {MAX_REQUEST_BYTES} bytes")
    try:
        asked = x509.load_der_x509_csr(request)
        key = asked.public_key()
        signed = asked.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidOption("request is no request for a certificate (PKCS #10, DER)") from error
    if not signed:
        raise InvalidOption("request: its signature is not of its key")
    if not isinstance(key, PublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS
    ):
        raise InvalidOption(f"request: a key is EC, Ed25519, or RSA of {MIN_RSA_BITS} bits")
    return key


def check_process_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name == "ca":
        raise InvalidOption(f"{name[:80]!r} is no name: give 1 to 64 of A-Z a-z 0-9 . _ -")
    return name


def general_name(host: str) -> x509.GeneralName:
    """A host or address as certificates have it. Raises InvalidOption."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise InvalidOption(f"{host[:80]!r} is no host name and no address")
    return x509.DNSName(host)
