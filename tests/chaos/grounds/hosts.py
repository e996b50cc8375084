"""A host of its own for every process: a network namespace each, with a cable to one switch.

The callers stand on this machine, whose own cable goes to the same switch; no process listens
there. A cable can be pulled, made slow, or lose packets, and two hosts can be kept apart.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos.grounds.ground import Ground

PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "iptables": "iptables"}
# Of a slow cable, each way: less than the callers of a worker send; the rest waits up to a second.
RATE, BURST, LATENCY = "160kbit", "4kb", "1s"
LOST_SHARE = 0.1


class Hosts(Ground):
    """Hosts come into being when their process is first named."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        rng = random.SystemRandom()
        self._tag = f"yp{os.getpid() % 10_000:04d}{rng.randrange(100):02d}"
        self._net = f"10.213.{rng.randrange(1, 255)}"
        self._numbers: dict[str, int] = {}

    @staticmethod
    def lacks() -> str:
        missing = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
        if missing:
            return f"the packages {', '.join(sorted(set(missing)))}"
        probe = ("ip", "netns", "add", f"yp-probe-{os.getpid()}")
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"network namespaces: {done.stderr.strip()}"
        _ip("netns", "del", probe[-1])
        return ""

    def open(self) -> None:
        _ip("netns", "add", self._switch)
        self._on_switch("link", "add", "hub", "type", "bridge", "stp_state", "0")
        self._on_switch("link", "set", "hub", "up")
        # The callers' cable.
        _ip("link", "add", self._tag, "type", "veth", "peer", "name", "p1", "netns", self._switch)
        _ip("addr", "add", f"{self._net}.1/24", "dev", self._tag)
        _ip("link", "set", self._tag, "up")
        self._plug_in("p1")

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._tag)
        for name in (*map(self._space, self._numbers), self._switch):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)
        self._numbers.clear()

    def address(self, name: str) -> str:
        if name not in self._numbers:
            self._numbers[name] = number = len(self._numbers) + 2
            space, place = self._space(name), f"{self._net}.{number}"
            _ip("netns", "add", space)
            peer = ("peer", "name", f"p{number}", "netns", self._switch)
            _ip("-n", space, "link", "add", "eth0", "type", "veth", *peer)
            _ip("-n", space, "addr", "add", f"{place}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", space, "link", "set", link, "up")
            self._plug_in(f"p{number}")
        return f"{self._net}.{self._numbers[name]}"

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        self.address(name)
        # It becomes the program, in that namespace: the pid is the program's.
        return ["ip", "netns", "exec", self._space(name), *command]

    def flags(self, name: str, module: str) -> tuple[str, ...]:
        own = self.address(name)
        if module == "control_plane":
            return (f"--host={own}", f"--http-host={own}", "--insecure")
        return (f"--host={own}", "--insecure") if module == "worker" else ()

    # --- faults -------------------------------------------------------------------------------

    def pull(self, name: str) -> None:
        """Pulls the cable of a host: what is sent either way is gone, and nobody is told."""
        self._on_switch("link", "set", f"p{self._numbers[name]}", "down")

    def plug(self, name: str) -> None:
        self._on_switch("link", "set", f"p{self._numbers[name]}", "up")

    def part(self, name: str, others: Sequence[str]) -> None:
        """Keeps a host from some others, silently; the rest of the network is as it was."""
        for other in others:
            self._filter(name, "-A", "INPUT", "-s", self.address(other), "-j", "DROP")
            self._filter(name, "-A", "OUTPUT", "-d", self.address(other), "-j", "DROP")

    def lose(self, name: str) -> None:
        """Every tenth packet that reaches a host is lost."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", str(LOST_SHARE))
        self._filter(name, "-A", "INPUT", *chance, "-j", "DROP")

    def join(self, name: str) -> None:
        """Ends `part` and `lose`."""
        self._filter(name, "-F")

    def slow(self, name: str) -> None:
        """A cable of little more than 100 kbit/s each way: what is sent waits for its turn."""
        shape = ("root", "tbf", "rate", RATE, "burst", BURST, "latency", LATENCY)
        _run("tc", "-n", self._space(name), "qdisc", "add", "dev", "eth0", *shape)
        port = f"p{self._numbers[name]}"
        _run("tc", "-n", self._switch, "qdisc", "add", "dev", port, *shape)

    def fast(self, name: str) -> None:
        _run("tc", "-n", self._space(name), "qdisc", "del", "dev", "eth0", "root")
        port = f"p{self._numbers[name]}"
        _run("tc", "-n", self._switch, "qdisc", "del", "dev", port, "root")

    # --- the parts ----------------------------------------------------------------------------

    @property
    def _switch(self) -> str:
        return f"{self._tag}-switch"

    def _space(self, name: str) -> str:
        return f"{self._tag}-{self._numbers[name]}"

    def _plug_in(self, port: str) -> None:
        self._on_switch("link", "set", port, "master", "hub")
        self._on_switch("link", "set", port, "up")

    def _on_switch(self, *words: str) -> None:
        _ip("-n", self._switch, *words)

    def _filter(self, name: str, *words: str) -> None:
        _run("ip", "netns", "exec", self._space(name), "iptables", "-w", *words)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
