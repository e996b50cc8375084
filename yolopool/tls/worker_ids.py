"""Which ids a worker may have by its certificate: the rule of both sides. Pure.

An id is a name of the certificate, or begins with one and a dash: of gpu-1 are gpu-1, and
gpu-1-cuda-GPU-5b3e. The names are the one that it was issued for, its hosts that are no loopback,
and the first label of each host name.
"""

import hashlib
import ipaddress
from collections.abc import Iterable

from yolopool.transport import is_loopback

# Of what stands for a host in the ids of its workers, behind which a device's name comes: an id has
# at most 120 characters, and the name of a certificate 64.
MAX_BASE_CHARS, _DIGEST_CHARS = 73, 8


def names_of(name: str, hosts: Iterable[str]) -> tuple[str, ...]:
    """The names of a certificate; the one that it was issued for is the first."""
    found = [name]
    for host in hosts:
        if host.startswith("*.") or is_loopback(host):
            continue  # they are no one's
        found.append(host)
        if not _is_address(host):
            found.append(host.partition(".")[0])
    return tuple(dict.fromkeys(one for one in found if one))


def owned_by(worker_id: str, names: Iterable[str]) -> str:
    """The longest of the names that an id is of; empty: it is of none."""
    own = [name for name in names if worker_id == name or worker_id.startswith(f"{name}-")]
    return max(own, key=len, default="")


def base(hostname: str, names: tuple[str, ...]) -> str:
    """What the ids of the workers of a host begin with: its name, behind that of the certificate
    where it is no name of that. Several hosts may have one certificate.
    """
    if not names or owned_by(hostname, names):
        return hostname
    room = MAX_BASE_CHARS - len(names[0]) - 1
    if len(hostname) > room:  # shortened, and still of this host alone
        digest = hashlib.sha256(hostname.encode()).hexdigest()[:_DIGEST_CHARS]
        hostname = hostname[: room - _DIGEST_CHARS] + digest
    return f"{names[0]}-{hostname}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
