"""Which tenant owns a model, which workers are whose, and what a ceiling lowers."""

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.access.tenant import Owners, Tenant, lowered
from yolopool.names import build_name
from yolopool.vocabulary import Priority


def owners(*tenants: Tenant) -> Owners:
    return Owners({tenant.name: tenant for tenant in tenants})


def owner(found: Owners, model: str) -> str:
    tenant = found.of(model)
    return tenant.name if tenant is not None else ""


def test_a_model_is_of_the_first_tenant_by_name_whose_pattern_matches() -> None:
    found = owners(
        Tenant("north", ("team-a/*", "bolts")),
        Tenant("south", ("team-[ab]/*", "*-shared")),
        Tenant("east", ("team-b/*",)),
    )
    of = {
        "team-a/x": "north",
        "bolts": "north",
        "team-b/y": "east",
        "x-shared": "south",
        "team-a": "",
        "team-c/x": "",
    }
    assert {name: owner(found, name) for name in of} == of
    assert owner(found, build_name("bolts", "onnx", "int8", "cpu")) == "north"


names = st.text("ab/*", min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from("xyz"), st.lists(names, max_size=3)), names)
def test_however_patterns_are_looked_up_the_first_by_name_wins(
    patterns: dict[str, list[str]], model: str
) -> None:
    found = owners(*(Tenant(name, tuple(some)) for name, some in patterns.items()))
    right = [
        name
        for name in sorted(patterns)
        if any(fnmatchcase(model, pattern) for pattern in patterns[name])
    ]
    assert owner(found, model) == next(iter(right), "")


def test_a_pool_of_a_tenant_is_for_its_models_alone() -> None:
    found = owners(Tenant("north", ("n/*",), pool="a"), Tenant("south", ("s/*",)))
    places = {
        (model, pool) for model in ("n/x", "s/x", "free") for pool in ("", "a", "b")
        if found.allows(model, pool)
    }  # fmt: skip
    assert places == {("n/x", "a"), ("s/x", ""), ("s/x", "b"), ("free", ""), ("free", "b")}
    assert owners().allows("any", "a")


def test_a_ceiling_lowers_what_is_more_urgent() -> None:
    interactive, normal, bulk = Priority.INTERACTIVE, Priority.NORMAL, Priority.BULK
    assert [lowered(one, normal) for one in (interactive, normal, bulk)] == [normal, normal, bulk]
    assert [lowered(one, interactive) for one in (normal, bulk)] == [normal, bulk]
