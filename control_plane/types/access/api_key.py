"""API keys as the registry keeps them: who holds one, what it allows, and hashes of its secret."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from yolopool.errors import InvalidOption

MAX_PATTERNS, MAX_PATTERN_CHARS = 64, 130


class Role(StrEnum):
    """What a caller may do. Of the first three, each may do what those before it may."""

    DETECT = "detect"
    OPERATE = "operate"
    ADMIN = "admin"
    # Of the pool's own processes, which may do nothing else.
    WORKER = "worker"  # join, import
    CONTROL_PLANE = "control-plane"  # ask the leader, in the name of its own callers
    JOIN = "join"  # get a first certificate, once

    @classmethod
    def of(cls, word: str) -> "Role":
        """The role of a word in the store. One of a newer release stays as it is written, so that
        its record is kept, and allows nothing here.
        """
        try:
            return cls(word)
        except ValueError:
            unknown = str.__new__(cls, word)
            unknown._name_, unknown._value_ = "UNKNOWN", word
            return unknown

    def __deepcopy__(self, memo: object) -> "Role":
        # Some releases of Python look a member up by its name, which an unknown one has not.
        return self

    def allows(self, needed: "Role") -> bool:
        """Whether a caller of this role may do what needs that one."""
        if self in _PEOPLE and needed in _PEOPLE:
            return _PEOPLE.index(self) >= _PEOPLE.index(needed)
        return self is needed


_PEOPLE = (Role.DETECT, Role.OPERATE, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class SecretHash:
    """scrypt of a secret, RFC 7914; hexadecimal. `until_unix_s`: valid so long, 0 without end."""

    salt: str
    digest: str
    until_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Joining:
    """The process that a key of the role join lets in, once, and that it became.

    `name` is empty until the process has one, `joined_unix_s` 0 until it joined; `until_unix_s` is
    the end of its newest certificate. `hosts`: none: the address that it joins from.
    """

    role: Role
    name: str = ""
    hosts: tuple[str, ...] = ()
    joined_unix_s: float = 0.0
    until_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `id` is shown, and is part of what the caller sends.

    `grants`: patterns of model names, such as team-a/*, of which one must match. Times in Unix
    seconds; 0: none.
    """

    id: str
    label: str
    tenant: str
    role: Role
    grants: tuple[str, ...]
    secrets: tuple[SecretHash, ...]
    created_unix_s: float
    expires_unix_s: float = 0.0
    revoked_unix_s: float = 0.0
    joins: Joining | None = None

    def is_valid(self, now: float) -> bool:
        return not self.revoked_unix_s and not 0 < self.expires_unix_s <= now

    @property
    def ends_unix_s(self) -> float:
        """When neither it nor a certificate that it gave is valid any more: until then it is kept,
        since by it such a certificate is revoked. inf: it has no end.
        """
        ends = self.revoked_unix_s or self.expires_unix_s
        if self.joins is not None:
            ends = max(ends, self.joins.until_unix_s)
        return ends or math.inf

    def joined(
        self, name: str, hosts: tuple[str, ...], now: float, until_unix_s: float
    ) -> "ApiKey":
        """A join token that was used: nothing is left of its secret, so that it lets in nobody."""
        assert self.joins is not None, "it is a join token"
        joins = replace(
            self.joins, name=name, hosts=hosts, joined_unix_s=now, until_unix_s=until_unix_s
        )
        return replace(self, secrets=(), expires_unix_s=0.0, joins=joins)

    def renewed(self, until_unix_s: float) -> "ApiKey":
        """A process whose newest certificate ends then."""
        assert self.joins is not None, "it joined"
        return replace(self, joins=replace(self.joins, until_unix_s=until_unix_s))

    def holds(self, name: str, now: float) -> bool:
        """Whether it is a process of this name whose certificate is valid."""
        joins = self.joins
        return (
            joins is not None
            and joins.name == name
            and not self.revoked_unix_s
            and joins.until_unix_s > now
        )

    def makes_keys(self, now: float) -> bool:
        """Whether its holder may make keys."""
        return self.role is Role.ADMIN and self.grants == ("*",) and self.is_valid(now)

    def valid_secrets(self, now: float) -> tuple[SecretHash, ...]:
        """The hashes that a secret may match at the moment; newest first."""
        if not self.is_valid(now):
            return ()
        return tuple(one for one in self.secrets if not 0 < one.until_unix_s <= now)

    def revoked(self, now: float) -> "ApiKey":
        """Ended; one that was ended before stays as it is."""
        return self if self.revoked_unix_s else replace(self, revoked_unix_s=now)

    def rotated(self, secret: SecretHash, now: float, overlap_s: float) -> "ApiKey":
        """With a new secret; the one before it is valid for `overlap_s` seconds more."""
        former = [replace(one, until_unix_s=now + overlap_s) for one in self.valid_secrets(now)[:1]]
        return replace(self, secrets=(secret, *(former if overlap_s > 0 else ())))


def checked_grants(patterns: Iterable[str]) -> tuple[str, ...]:
    """Patterns as a caller has them, none: all; one that says * alone makes the others needless.
    Raises InvalidOption.
    """
    grants = tuple(dict.fromkeys(patterns)) or ("*",)
    if len(grants) > MAX_PATTERNS:
        raise InvalidOption(f"models: at most {MAX_PATTERNS} patterns, or *")
    for pattern in grants:
        if not 0 < len(pattern) <= MAX_PATTERN_CHARS or not pattern.isprintable():
            raise InvalidOption(
                f"models: a pattern has 1 to {MAX_PATTERN_CHARS} characters, such as team-a/*"
            )
    return ("*",) if "*" in grants else grants


def is_granted(grants: tuple[str, ...], model: str) -> bool:
    """Whether one of the patterns matches a model's name; * also matches slashes."""
    return any(fnmatchcase(model, pattern) for pattern in grants)
