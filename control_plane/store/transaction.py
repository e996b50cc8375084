"""What a write verb reads and writes: the store at one revision, and the changes to commit."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol, TypeVar

from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import AlertSetting
from control_plane.types.desired import Want
from control_plane.types.lease import FencingToken
from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.schedule import Schedule
from control_plane.types.sources.watch import Watch
from control_plane.types.version import ModelVersion, VersionKey

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ImportJob:
    """The place of a version in the import queue, and who holds it until when.

    `order` is the revision before the job was made. A job is there while its version is UPLOADED
    or IMPORTING. `by`: whose certificate or key the importer has; empty: a release before this one
    wrote the job, and did not look.
    """

    order: int
    importer: str = ""
    until_unix_s: float = 0.0
    by: str = ""

    def is_free(self, now: float) -> bool:
        """Whether an importer may claim it: nobody holds it, or the lease ran out."""
        return self.until_unix_s <= now

    def is_held_by(self, importer: str, by: str) -> bool:
        """Whether an importer that calls as `by` holds it, or held it last."""
        return self.importer == importer and self.by in ("", by)


@dataclass(slots=True)
class Writes:
    """Changes by key; None removes what is there."""

    versions: dict[VersionKey, ModelVersion | None] = field(default_factory=dict)
    wants: dict[VersionKey, Want | None] = field(default_factory=dict)
    cordons: dict[str, str | None] = field(default_factory=dict)
    schedules: dict[str, Schedule | None] = field(default_factory=dict)
    numbers: dict[str, int | None] = field(default_factory=dict)
    api_keys: dict[str, ApiKey | None] = field(default_factory=dict)
    tenants: dict[str, Tenant | None] = field(default_factory=dict)
    aliases: dict[AliasKey, Alias | None] = field(default_factory=dict)
    rules: dict[str, ModelRule | None] = field(default_factory=dict)
    watches: dict[str, Watch | None] = field(default_factory=dict)
    alerts: dict[str, AlertSetting | None] = field(default_factory=dict)
    # These two are no desired state: a commit makes a revision for them, which names nothing.
    jobs: dict[VersionKey, ImportJob | None] = field(default_factory=dict)
    requests: dict[str, VersionKey] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(getattr(self, map_.name) for map_ in fields(self))


class Transaction(ABC):
    """One run of a verb. A store implements the reads; the writes are noted for it to commit.

    A read answers what was there before: a verb does not see its own writes.
    """

    def __init__(self) -> None:
        self.writes = Writes()

    @property
    @abstractmethod
    def revision(self) -> int: ...

    @abstractmethod
    def expect(
        self,
        versions: Iterable[VersionKey] = (),
        wants: Iterable[VersionKey] = (),
        jobs: Iterable[VersionKey] = (),
        numbers: Iterable[str] = (),
        request_id: str = "",
        aliases: bool = False,
    ) -> None:
        """Says what is read next, so that a remote store fetches it in one round trip. A hint:
        what was not expected can be read too.
        """

    @abstractmethod
    def version(self, key: VersionKey) -> ModelVersion | None: ...

    @abstractmethod
    def want(self, key: VersionKey) -> Want | None: ...

    @abstractmethod
    def cordon(self, worker_id: str) -> str | None:
        """The incarnation of the worker that is to drain."""

    @abstractmethod
    def schedule(self, name: str) -> Schedule | None: ...

    @abstractmethod
    def api_key(self, id_: str) -> ApiKey | None: ...

    @abstractmethod
    def tenant(self, name: str) -> Tenant | None: ...

    @abstractmethod
    def alias(self, key: AliasKey) -> Alias | None: ...

    @abstractmethod
    def aliases(self) -> Mapping[AliasKey, Alias]:
        """All aliases."""

    @abstractmethod
    def rule(self, pattern: str) -> ModelRule | None: ...

    @abstractmethod
    def watch(self, name: str) -> Watch | None: ...

    @abstractmethod
    def alert_setting(self, key: str) -> AlertSetting | None: ...

    @abstractmethod
    def number(self, name: str) -> int:
        """The highest number that a name ever had; 0: none."""

    @abstractmethod
    def job(self, key: VersionKey) -> ImportJob | None: ...

    @abstractmethod
    def jobs(self) -> Mapping[VersionKey, ImportJob]:
        """The whole import queue."""

    @abstractmethod
    def request(self, request_id: str) -> VersionKey | None:
        """The version that `register` made for this request id."""

    def put_version(self, version: ModelVersion) -> ModelVersion:
        self.writes.versions[version.key] = version
        return version

    def drop_version(self, key: VersionKey) -> None:
        self.writes.versions[key] = None

    def put_want(self, want: Want) -> None:
        self.writes.wants[want.key] = want

    def drop_want(self, key: VersionKey) -> None:
        self.writes.wants[key] = None

    def put_cordon(self, worker_id: str, incarnation: str) -> None:
        self.writes.cordons[worker_id] = incarnation

    def put_schedule(self, schedule: Schedule) -> Schedule:
        self.writes.schedules[schedule.name] = schedule
        return schedule

    def drop_schedule(self, name: str) -> None:
        self.writes.schedules[name] = None

    def put_api_key(self, key: ApiKey) -> ApiKey:
        self.writes.api_keys[key.id] = key
        return key

    def drop_api_key(self, id_: str) -> None:
        self.writes.api_keys[id_] = None

    def put_tenant(self, tenant: Tenant) -> Tenant:
        self.writes.tenants[tenant.name] = tenant
        return tenant

    def drop_tenant(self, name: str) -> None:
        self.writes.tenants[name] = None

    def put_alias(self, alias: Alias) -> Alias:
        self.writes.aliases[alias.key] = alias
        return alias

    def drop_alias(self, key: AliasKey) -> None:
        self.writes.aliases[key] = None

    def put_rule(self, rule: ModelRule) -> None:
        self.writes.rules[rule.pattern] = rule

    def drop_rule(self, pattern: str) -> None:
        self.writes.rules[pattern] = None

    def put_watch(self, watch: Watch) -> Watch:
        self.writes.watches[watch.name] = watch
        return watch

    def drop_watch(self, name: str) -> None:
        self.writes.watches[name] = None

    def put_alert_setting(self, setting: AlertSetting) -> None:
        self.writes.alerts[setting.key] = setting

    def drop_alert_setting(self, key: str) -> None:
        self.writes.alerts[key] = None

    def put_number(self, name: str, number: int) -> None:
        self.writes.numbers[name] = number

    def put_job(self, key: VersionKey, job: ImportJob) -> None:
        self.writes.jobs[key] = job

    def drop_job(self, key: VersionKey) -> None:
        self.writes.jobs[key] = None

    def put_request(self, request_id: str, key: VersionKey) -> None:
        self.writes.requests[request_id] = key


class Writer(Protocol):
    """A store that runs verbs, as `WriteVerbs.write` says."""

    async def write(
        self, verb: Callable[[Transaction], Answer], token: FencingToken | None = None
    ) -> Answer: ...
