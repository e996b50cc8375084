"""Where on a host the files are that a Python process of ours needs, by what it may do there."""

import os
import site
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from yolopool.server.confinement.landlock import CHANGE, READ, READ_DIR, RUN, USE_DEVICE

Places = tuple[tuple[Path, int], ...]

# Programs too: libraries start some to look at the machine.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
# Of the C library, of its name resolution and of TLS. Nothing of users, no keys.
_CONFIGURATION = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld.so.preload",
    "alternatives",
    "localtime",
    "os-release",
    "debian_version",
    "mime.types",
)
_NAMES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls",
    "/etc/pki/ca-trust",
    # Where resolv.conf is a link to.
    "/run/systemd/resolve",
    "/run/resolvconf",
)
# This process and its threads; not others, whose environment holds keys. Then the processor, and
# the limits of a container.
_KERNEL = (
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/sys",
    "/sys/devices",
    "/sys/fs/cgroup",
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
# What the driver of NVIDIA opens: its nodes, what the kernel says of it and of the bus, and shared
# memory between processes.
_NVIDIA_NODES = ("/dev/nvidia-caps", "/dev/nvidia-caps-imex-channels")
_NVIDIA_FACTS = ("/proc/driver", "/proc/devices", "/proc/modules", "/sys")


def of_python(packages: Sequence[str]) -> Places:
    """The interpreter, the libraries it imports, and the folders of `packages`, already imported.

    Of the module path only folders that packages were installed to: the current folder is on it
    too, and may hold anything.
    """
    found = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)}
    found |= {Path(entry) for entry in (*installed(), *site.getsitepackages())}
    for name in packages:
        found |= {Path(folder) for folder in sys.modules[name].__path__}
    return _with(RUN, sorted(found))


def installed() -> list[str]:
    """The entries of the module path that packages were installed to."""
    own = (Path(sys.prefix), Path(sys.base_prefix))
    return [
        entry
        for entry in sys.path
        if entry and (any(map(Path(entry).is_relative_to, own)) or _has_packages(Path(entry)))
    ]


def of_system() -> Places:
    """Libraries and programs of the host, and what they read of its configuration and kernel."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders = [Path(name) for name in (*_SYSTEM, *libraries) if name.startswith("/")]
    files = [Path("/etc", name) for name in _CONFIGURATION]
    devices = [Path("/dev", name) for name in _DEVICES]
    return (
        *_with(RUN, folders),
        *_with(READ, [*files, *map(Path, _KERNEL)]),
        *_with(USE_DEVICE, devices),
    )


def of_network() -> Places:
    """What resolves names and checks certificates."""
    return _with(READ, map(Path, _NAMES))


def of_nvidia() -> Places:
    """The nodes of NVIDIA's driver, as far as they are there now."""
    nodes = [path for path in Path("/dev").glob("nvidia*") if not path.is_dir()]
    return (
        *_with(USE_DEVICE, [*nodes, *map(Path, _NVIDIA_NODES)]),
        *_with(READ, map(Path, _NVIDIA_FACTS)),
        *_with(CHANGE, [Path("/dev/shm")]),
    )


def readable_beside(files: Sequence[Path], own: Path, granted: Places) -> str:
    """Says where a folder of `files`, `own` excepted, lies in a place that is granted; else empty:
    what is beside the files can't be read.
    """
    for folder in {file.parent for file in files if not file.is_relative_to(own.resolve())}:
        for place, rights in granted:
            if rights & READ_DIR and folder.is_relative_to(place.resolve()):
                return f"{folder} is in {place}, which libraries need: move one of them"
    return ""


def _has_packages(entry: Path) -> bool:
    return entry.is_file() or any(True for _ in entry.glob("*.dist-info"))


def _with(rights: int, places: Iterable[Path]) -> Places:
    return tuple((place, rights) for place in places)
