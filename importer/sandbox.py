"""The sandbox of a process that reads an untrusted file: no network, no exec, bounded resources,
and of all files only its own.

Standard library and pyseccomp only. A layer that the host refuses becomes a warning in the pack: a
weaker sandbox is reported, never silent.
"""

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from yolopool.server.confinement import host_paths, landlock

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_CLONE_THREAD = 0x10000
# Of a host without memory the kernel ends the import, and nothing of the pool.
_FIRST_TO_GO = 1000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4
# io_uring could do what the other calls may not; the rest reaches other processes, their priority,
# memory and keys, or mounts, or changes what Landlock does not guard: modes, owners, times and
# attributes of files.
_REFUSED_CALLS: tuple[str | int, ...] = (
    "socket",
    "socketpair",
    "connect",
    "bind",
    "listen",
    "execve",
    "execveat",
    "fork",
    "vfork",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "io_uring_setup",
    "kill",
    "tkill",
    "tgkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_open",
    "pidfd_send_signal",
    "ioprio_set",
    "migrate_pages",
    "move_pages",
    "kcmp",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "open_by_handle_at",
    "unshare",
    "setns",
    "init_module",
    "finit_module",
    "kexec_load",
    "reboot",
    "bpf",
    "perf_event_open",
    "keyctl",
    "add_key",
    "request_key",
    "userfaultfd",
    "truncate",
    "chmod",
    "fchmod",
    "fchmodat",
    452,  # fchmodat2
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    463,  # setxattrat and removexattrat, whose names older libraries do not know
    466,
)
# By the number of an argument, of which a 0 means the caller itself. The number of another process
# would reach any of its user: a limit of processor time ends it.
_OF_ITSELF_ALONE = (
    ("prlimit64", 0),
    ("sched_setaffinity", 0),
    ("sched_setattr", 0),
    ("sched_setparam", 0),
    ("sched_setscheduler", 0),
    ("setpriority", 0),
    ("setpriority", 1),
)
# By the number of an argument and its value: a file that sends signals, to any process of the user;
# and an own end that is not the parent's, and memory that others may look at.
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_INT = 0xFFFFFFFF  # the kernel does not look at the rest
_REFUSED_WITH = (
    ("fcntl", 1, _F_SETOWN),
    ("fcntl", 1, _F_SETSIG),
    ("fcntl", 1, _F_SETOWN_EX),
    ("prctl", 0, _PR_SET_PDEATHSIG),
    ("prctl", 0, _PR_SET_DUMPABLE),
)


def before_imports(inputs: Sequence[Path], folder: Path) -> list[str]:
    """Sets the lowest priority, death with the parent, and before others where memory runs out;
    namespaces without a network; and that of all files it may read `inputs` and what libraries
    need, and write in `folder` alone.

    Must run while the process has one thread: the kernel refuses a new user namespace afterwards,
    and threads that ran before would not be confined.
    """
    warnings = die_with_parent()
    os.nice(19)
    with suppress(OSError):  # where there is none, there is no such choice to make
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO))
    return [*warnings, *_without_network(), *_own_files(inputs, folder)]


def die_with_parent() -> list[str]:
    """The kernel kills this process when the one that started it ends."""
    if _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return [_weaker("death with the parent", _last_error())]
    return []


def _without_network() -> list[str]:
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) != 0:
        return [_weaker("network name space", _last_error())]
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError as error:
        return [_weaker("map of the user name space", error.strerror or str(error))]
    return []


def _own_files(inputs: Sequence[Path], folder: Path) -> list[str]:
    files = [path.resolve() for path in inputs]
    rules = landlock.Rules(
        (
            *host_paths.of_python(("importer", "yolopool")),
            *host_paths.of_system(),
            *((path, landlock.READ) for path in files),
            (folder, landlock.CHANGE),
        ),
        connects=False,
    )
    missing = landlock.confine(rules)
    if not missing:
        sys.path[:] = host_paths.installed()  # of the others the names would be found, and no files
        # A file beside it would be readable too where it lies among libraries.
        missing = host_paths.readable_beside(files, folder, rules.places)
    return [_weaker("confinement of files", missing)] if missing else []


def after_imports(memory_bytes: int, file_bytes: int, cpu_s: int) -> list[str]:
    """Sets the limits and the system call filter: after the imports, before the file is opened.

    The address space is limited to what is mapped now plus `memory_bytes`, so that libraries that
    map much (CUDA builds of torch) do not leave less for the import.
    """
    warnings = []
    limits: Sequence[tuple[str, int, int]] = (
        ("core dumps", resource.RLIMIT_CORE, 0),
        ("file size", resource.RLIMIT_FSIZE, file_bytes),
        ("processor time", resource.RLIMIT_CPU, cpu_s),
        ("open files", resource.RLIMIT_NOFILE, 256),
        ("address space", resource.RLIMIT_AS, _mapped_bytes() + memory_bytes),
    )
    for name, number, value in limits:
        try:
            _, hard = resource.getrlimit(number)
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (bound, bound))
        except (OSError, ValueError) as error:
            warnings.append(_weaker(f"limit of {name}", str(error)))
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        warnings.append(_weaker("no new privileges", _last_error()))
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        warnings.append(_weaker("closed memory", _last_error()))
    return warnings + _filter_calls()


def _filter_calls() -> list[str]:
    try:
        import pyseccomp

        calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        calls.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)  # also threads that libraries have started
        for name in _REFUSED_CALLS:
            calls.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
        for name, number in _OF_ITSELF_ALONE:
            another = pyseccomp.Arg(number, pyseccomp.NE, 0)
            calls.add_rule(pyseccomp.ERRNO(errno.EPERM), name, another)
        for name, number, value in _REFUSED_WITH:
            given = pyseccomp.Arg(number, pyseccomp.MASKED_EQ, _INT, value)
            calls.add_rule(pyseccomp.ERRNO(errno.EPERM), name, given)
        # Allows threads and refuses processes, which would outlive the import. A filter cannot read
        # the flags of clone3; without it, C libraries fall back to clone.
        process = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0)
        calls.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", process)
        calls.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
        calls.load()
    except (ImportError, OSError, RuntimeError, ValueError, AttributeError) as error:
        return [_weaker("system call filter", str(error))]
    return []


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _last_error() -> str:
    return errno.errorcode.get(ctypes.get_errno(), "?")


def _weaker(layer: str, why: str) -> str:
    return f"imported in a weaker sandbox: this host refused the {layer} ({why})"
