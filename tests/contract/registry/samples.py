"""What the tests of the registry write, and the stores they write it to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from control_plane.store.registry import Registry
from control_plane.types.access.api_key import ApiKey, Role, SecretHash
from control_plane.types.access.tenant import Tenant, TenantLimits
from control_plane.types.alerts.alert_setting import Webhook
from control_plane.types.desired import Want, WantSource
from control_plane.types.policy import Gate, ModelRule, Validation
from control_plane.types.rollout.alias import (
    Alias,
    AliasChange,
    ChangeKind,
    Kept,
    Shadow,
    Switch,
    Target,
)
from control_plane.types.rollout.progress import Rollout, RolloutPlan
from control_plane.types.schedule import Changeover, Schedule
from control_plane.types.sources.watch import Watch
from control_plane.types.version import Imported, Pack, VersionKey, VersionSettings
from yolopool.evaluation.agreement.disagreement import Tolerance
from yolopool.vocabulary import Priority, ShapePolicy

PACK = Pack(
    "d" * 64, "yolo11n-detect", "detect", ("circle", "square"), 10, 20, 30, ("weak",), 6.5, 7, 8
)
SETTINGS = VersionSettings(320, 0.25, 0.7, 300, ShapePolicy.RECT)
DAILY = Schedule("day", "0 6 * * *", "", 0.0, Changeover((), ("a",)), 1.0)

ISSUED = ApiKey(
    "k1", "cameras", "north", Role.DETECT, ("north/*",), (SecretHash("00ff", "11ee"),), 1.0, 9e9
)

NORTH = Tenant(
    "north",
    ("north/*", "shared"),
    TenantLimits(9.5, 4, 1000, 10**12, 10**10, 0.5),
    2.0,
    Priority.NORMAL,
    "night",
)


STABLE = Alias(
    "wanted",
    "stable",
    (Target(1, 1000),),
    600.0,
    5.0,
    switch=Switch(
        (Target(1, 950), Target(2, 50)), ChangeKind.SET, "ann", "try it", 6.0, 606.0, "r"
    ),
    kept=(Kept(3, 99.0, 2, WantSource.ADMIN),),
    shadow=Shadow(2, 100),
    rollout=Rollout(
        "r1",
        1,
        2,
        RolloutPlan((0, 1000), 9, 1.5, 0.02, 0.1, Tolerance(unmatched=0.4), True),
        "ann",
        "try it",
        7.0,
        8.0,
        1,
        "A_NEWER_WORD",
        True,
        9.0,
        ("shift: far",),
        ("errors: none",),
    ),
    history=(
        AliasChange(4.0, ChangeKind.SET, "ann", "first", (), (Target(1, 1000),), "q"),
        AliasChange(5.0, "A_NEWER_WORD", "ann", "", (Target(1, 1000),), (Target(1, 1000),)),
    ),
)

HOOK = Webhook("ops", "https://hooks.example.com/a", "slack", "word", by="ann")
WATCHED = Watch("line7", "s3://bucket/line7/", "wanted", by="ann", seen={"a.pt": "1"}, begun=True)


RULE = ModelRule("pinned", Gate("e" * 64, 0.6, 0.8, 9.0), 3, 10**10)
DID = Validation("e" * 64, 10.0, 40, 120, 0.9, 0.7)


@dataclass(frozen=True)
class Case:
    registry: Registry
    other: Registry  # another client of the same store
    empty: Callable[[], Awaitable[object]]


IMPORTED = Imported(PACK, SETTINGS)


async def register(
    registry: Registry,
    name: str = "shapes",
    request_id: str = "",
    imported: Imported | None = None,
    above: int = 0,
) -> VersionKey:
    version = await registry.register(
        name, "a" * 64, SETTINGS, "best.pt", request_id, 100.0, imported=imported, above=above
    )
    return version.key


def a_want(key: VersionKey, replicas: int = 1, **kwargs: object) -> Want:
    source = kwargs.pop("source", WantSource.ADMIN)
    want = Want(key, replicas, False, WantSource(str(source)), 50.0)
    return replace(want, **kwargs)  # type: ignore[arg-type] # fields of Want
