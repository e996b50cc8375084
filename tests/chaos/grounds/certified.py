"""A pool whose processes check each other by certificates, which can be made to run out."""

import time
from pathlib import Path

from benchmarks.harness.pool import free_port
from tests.chaos.grounds.ground import LOOPBACK, Ground
from yolopool.tls import authority
from yolopool.tls.certificates import Certificates, TlsFiles

HARNESS = "harness"
ROLES = {"control_plane": "control-plane", "worker": "worker", "importer": "worker"}
LONG_DAYS = 1.0
DAY_S = 86_400.0


class Certified(Ground):
    """Everyone gets a certificate when they are first named; `renew` gives all of them another."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder / "certs"
        self._roles: dict[str, str] = {}
        self._pool_ports: dict[str, int] = {}
        self._own: Certificates | None = None

    def open(self) -> None:
        authority.create(self._folder, time.time())
        # As a control plane, whom workers obey.
        self._roles[HARNESS] = ROLES["control_plane"]
        self.renew(LONG_DAYS * DAY_S)
        self._own = Certificates(self._files(HARNESS))

    def flags(self, name: str, module: str) -> tuple[str, ...]:
        self._roles[name] = ROLES[module]
        self._issue(name, LONG_DAYS * DAY_S)
        files = self._files(name)
        tls = (
            f"--tls-ca={files.authority}",
            f"--tls-cert={files.certificate}",
            f"--tls-key={files.key}",
        )
        if module != "control_plane":
            return tls
        return (*tls, f"--pool-port={self.pool_port(name)}")

    def pool_port(self, name: str) -> int:
        """Where the pool's own processes reach a control plane."""
        return self._pool_ports.setdefault(name, free_port())

    def renew(self, seconds: float) -> None:
        """Gives everyone a certificate that is valid for so long from now."""
        for name in self._roles:
            self._issue(name, seconds)

    @property
    def ca(self) -> Path | None:
        return self._folder / "ca.pem"

    @property
    def certificates(self) -> Certificates | None:
        return self._own

    def _issue(self, name: str, seconds: float) -> None:
        role, hosts = self._roles[name], (LOOPBACK, "localhost")
        authority.issue(self._folder, name, role, hosts, seconds / DAY_S, time.time())

    def _files(self, name: str) -> TlsFiles:
        folder = self._folder
        return TlsFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
