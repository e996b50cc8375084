"""What there is of a tenant."""

from dataclasses import replace

from control_plane.tenants.deletion import belongings
from control_plane.types.access.tenant import Tenant
from control_plane.types.desired import Desired
from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, Target
from tests.unit.control_plane.fleets import key, version


def test_aliases_and_rules_of_its_models_are_its_own() -> None:
    names = ("north/a", "south/b")
    versions = {key(name): replace(version(name), key=key(name)) for name in names}
    aliases = [Alias(name, "stable", (Target(1, 1000),), 0.0, 0.0) for name in names]
    rules = [ModelRule(p, keep_versions=1) for p in ("north/*", "north/a", "south/b", "*")]
    desired = Desired(
        1, "c", versions, {}, tenants={"north": Tenant("north", ("north/*",))},
        aliases={one.key: one for one in aliases}, rules={one.pattern: one for one in rules},
    )  # fmt: skip
    found = belongings(desired, "north")
    assert found.models == ("north/a",)
    assert found.aliases == (aliases[0].key,)
    assert found.rules == ("north/*", "north/a")
