"""A private authority for a small fleet: its certificate, and those that it issues.

Keys are P-256, which every TLS 1.2 and 1.3 library knows. Key files are of this user alone.
"""

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from yolopool.errors import FailedPrecondition, InvalidOption
from yolopool.tls import signing
from yolopool.tls.certificates import JOINED, SCHEME

AUTHORITY_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. Times in Unix seconds."""

    path: Path
    subject: str
    role: str
    hosts: tuple[str, ...]
    from_unix_s: float
    until_unix_s: float
    is_authority: bool


def create(folder: Path, now: float) -> Certificate:
    """Makes an authority: ca.pem and ca.key. Raises FailedPrecondition if there is one."""
    path, key_path = folder / "ca.pem", folder / "ca.key"
    if path.exists() or key_path.exists():
        raise FailedPrecondition(
            f"{folder} has an authority: what it issued would be worth nothing with another; "
            "choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "yolopool authority")])
    begins = datetime.datetime.fromtimestamp(now, datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - signing.SKEW)
        .not_valid_after(begins + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write(key_path, pem(key))
    write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return shown(path)


def issue(
    folder: Path, name: str, role: str, hosts: Sequence[str], days: float, now: float
) -> Certificate:
    """Issues NAME.pem and NAME.key, or renews them with another key.

    `hosts`: names and addresses under which others reach the process. Raises InvalidOption, and
    FailedPrecondition if the folder has no authority.
    """
    if not 0 < days <= AUTHORITY_DAYS:
        raise InvalidOption(f"days is {days:g}: give more than 0, to {AUTHORITY_DAYS}")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _authority(folder).signed(
        key.public_key(), name, role, hosts, datetime.timedelta(days=days), now
    )
    write(folder / f"{name}.key", pem(key))
    path = folder / f"{name}.pem"
    write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return shown(path)


def shown(path: Path) -> Certificate:
    """What the certificate in a PEM file says. Raises InvalidOption if it holds none."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise InvalidOption(f"{path} holds no certificate in PEM: {error}") from error
    role, hosts = "", []
    for name in _names(certificate):
        text = str(name.value)
        if isinstance(name, x509.UniformResourceIdentifier) and text.startswith(f"{SCHEME}://"):
            role = text.removeprefix(f"{SCHEME}://").partition("/")[0]
        elif not text.startswith(f"{JOINED}://"):
            hosts.append(text)
    subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        path,
        str(subject[0].value) if subject else "",
        role,
        tuple(hosts),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        _is_authority(certificate),
    )


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(found.value)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def _authority(folder: Path) -> signing.Authority:
    try:
        return signing.read(folder / "ca.pem", folder / "ca.key")
    except (FileNotFoundError, ValueError) as error:
        raise FailedPrecondition(
            f"{folder} has no authority (ca.pem, ca.key): make one with 'yolopool certs init'"
        ) from error


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Whole or not at all, so that a process that reads it again never sees a half."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
