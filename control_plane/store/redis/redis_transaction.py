"""One run of a write verb on what was read from Redis, and its writes as Redis commands."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from control_plane.store import codec
from control_plane.store.alerts.alert_codec import decode_setting, encode_setting
from control_plane.store.redis.redis_keys import (
    ALERTS,
    ALIASES,
    API_KEYS,
    CORDONS,
    IMPORTS,
    NUMBERS,
    REQUEST,
    RULES,
    SCHEDULES,
    TENANTS,
    VERSIONS,
    WANTS,
    WATCHES,
)
from control_plane.store.redis.redis_stand import UNREAD, Stand
from control_plane.store.registry import REQUEST_ID_KEPT_S
from control_plane.store.rules import rule_codec
from control_plane.store.sources.watch_codec import decode_watch, encode_watch
from control_plane.store.transaction import ImportJob, Transaction, Writes
from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import AlertSetting
from control_plane.types.desired import Want
from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.schedule import Schedule
from control_plane.types.sources.watch import Watch
from control_plane.types.version import ModelVersion, VersionKey

Record = TypeVar("Record")
Read = tuple[str, ...]  # a command that reads: HGET, key, field
Command = list[str]


_ALL_ALIASES: Read = ("HGETALL", ALIASES)


class NotRead(Exception):
    """A verb needs what was not read yet."""

    def __init__(self, reads: Sequence[Read]) -> None:
        self.reads = reads


class RedisTransaction(Transaction):
    """`replies` belong to `stand`. A read that is not among them raises NotRead."""

    def __init__(self, stand: Stand, replies: Mapping[Read, Any]) -> None:
        super().__init__()
        self.stand = stand
        self.replies = replies

    @property
    def revision(self) -> int:
        self._need([])
        return int(self.stand.revision)

    def expect(
        self,
        versions: Iterable[VersionKey] = (),
        wants: Iterable[VersionKey] = (),
        jobs: Iterable[VersionKey] = (),
        numbers: Iterable[str] = (),
        request_id: str = "",
        aliases: bool = False,
    ) -> None:
        self._need(
            [
                *(_field(VERSIONS, str(key)) for key in versions),
                *(_field(WANTS, str(key)) for key in wants),
                *(_field(IMPORTS, str(key)) for key in jobs),
                *(_field(NUMBERS, name) for name in numbers),
                *([_request(request_id)] if request_id else []),
                *([_ALL_ALIASES] if aliases else []),
            ]
        )

    def version(self, key: VersionKey) -> ModelVersion | None:
        return self._decoded(_field(VERSIONS, str(key)), codec.decode_version)

    def want(self, key: VersionKey) -> Want | None:
        return self._decoded(_field(WANTS, str(key)), codec.decode_want)

    def cordon(self, worker_id: str) -> str | None:
        return self._decoded(_field(CORDONS, worker_id), str)

    def schedule(self, name: str) -> Schedule | None:
        return self._decoded(_field(SCHEDULES, name), codec.decode_schedule)

    def api_key(self, id_: str) -> ApiKey | None:
        return self._decoded(_field(API_KEYS, id_), codec.decode_api_key)

    def tenant(self, name: str) -> Tenant | None:
        return self._decoded(_field(TENANTS, name), codec.decode_tenant)

    def alias(self, key: AliasKey) -> Alias | None:
        return self._decoded(_field(ALIASES, str(key)), codec.decode_alias)

    def aliases(self) -> Mapping[AliasKey, Alias]:
        found = (codec.decode_alias(text) for text in self._reply(_ALL_ALIASES).values())
        return {alias.key: alias for alias in found}

    def rule(self, pattern: str) -> ModelRule | None:
        return self._decoded(_field(RULES, pattern), rule_codec.decode_rule)

    def watch(self, name: str) -> Watch | None:
        return self._decoded(_field(WATCHES, name), decode_watch)

    def alert_setting(self, key: str) -> AlertSetting | None:
        return self._decoded(_field(ALERTS, key), decode_setting)

    def number(self, name: str) -> int:
        return self._decoded(_field(NUMBERS, name), int) or 0

    def job(self, key: VersionKey) -> ImportJob | None:
        return self._decoded(_field(IMPORTS, str(key)), codec.decode_job)

    def jobs(self) -> Mapping[VersionKey, ImportJob]:
        jobs = self._reply(("HGETALL", IMPORTS))
        return {codec.decode_key(name): codec.decode_job(text) for name, text in jobs.items()}

    def request(self, request_id: str) -> VersionKey | None:
        return self._decoded(_request(request_id), codec.decode_key)

    def _decoded(self, read: Read, decode: Callable[[str], Record]) -> Record | None:
        text = self._reply(read)
        return decode(text) if text is not None else None

    def _reply(self, read: Read) -> Any:
        self._need([read])
        return self.replies[read]

    def _need(self, reads: Sequence[Read]) -> None:
        missing = list(dict.fromkeys(read for read in reads if read not in self.replies))
        if missing or self.stand is UNREAD:
            raise NotRead(missing)


def _field(key: str, field: str) -> Read:
    return ("HGET", key, field)


def _before(replies: Mapping[Read, Any], key: str, field: str) -> str | None:
    """A field as the verb read it: alone, or with all of its hash."""
    alone: str | None = replies.get(_field(key, field))
    return alone if alone is not None else (replies.get(("HGETALL", key)) or {}).get(field)


def _request(request_id: str) -> Read:
    return ("GET", REQUEST + request_id)


def commands_of(writes: Writes, replies: Mapping[Read, Any] | None = None) -> list[Command]:
    """What makes these writes; `replies`: what the verb read, which may be of another release."""
    kept = str(int(REQUEST_ID_KEPT_S))

    def records(
        key: str,
        kind: type[Record],
        values: Mapping[Any, Record | None],
        encode: Callable[[Record], str],
    ) -> Iterator[Command]:
        for command in _fields(key, values, encode):
            before = _before(replies, key, command[2]) if replies else None
            if command[0] == "HSET" and before is not None:
                command[3] = codec.keeping(kind, command[3], before)
            yield command

    return [
        *records(VERSIONS, ModelVersion, writes.versions, codec.encode_version),
        *records(WANTS, Want, writes.wants, codec.encode_want),
        *_fields(CORDONS, writes.cordons, str),
        *records(SCHEDULES, Schedule, writes.schedules, codec.encode_schedule),
        *_fields(NUMBERS, writes.numbers, str),
        *records(API_KEYS, ApiKey, writes.api_keys, codec.encode_api_key),
        *records(TENANTS, Tenant, writes.tenants, codec.encode_tenant),
        *records(ALIASES, Alias, writes.aliases, codec.encode_alias),
        *records(RULES, ModelRule, writes.rules, rule_codec.encode_rule),
        *records(WATCHES, Watch, writes.watches, encode_watch),
        *_alerts(writes.alerts),
        *_fields(IMPORTS, writes.jobs, codec.encode_job),
        *(
            ["SET", REQUEST + request_id, str(key), "EX", kept]
            for request_id, key in writes.requests.items()
        ),
    ]


def _alerts(settings: Mapping[str, AlertSetting | None]) -> Iterator[Command]:
    for key, setting in settings.items():
        if setting is None:
            yield ["HDEL", ALERTS, key]
        else:
            yield ["HSET", ALERTS, key, encode_setting(setting)]


def _fields(
    key: str, values: Mapping[Any, Record | None], encode: Callable[[Record], str]
) -> Iterator[Command]:
    for name, value in values.items():
        if value is None:
            yield ["HDEL", key, str(name)]
        else:
            yield ["HSET", key, str(name), encode(value)]
