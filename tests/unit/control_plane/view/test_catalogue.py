"""Names that people may use, and what they mean."""

from dataclasses import replace

import pytest

from control_plane.types.policy import Gate, ModelRule, Validation
from control_plane.types.rollout.alias import Alias, Target
from control_plane.types.rollout.family import Family, Member, classes_of
from control_plane.types.version import ModelVersion, VersionState
from control_plane.view.catalogue import Catalogue
from tests.unit.control_plane.fleets import key, version
from yolopool import errors
from yolopool.names import parse_ref


def catalogue(*states: VersionState) -> Catalogue:
    versions = {
        key("team/shapes", n): replace(
            version("x", state=state),
            key=key("team/shapes", n),
            reason="ARTIFACT_UNSAFE",
            message="it runs code",
        )
        for n, state in enumerate(states, 1)
    }
    return Catalogue(versions.values())


READY, FAILED, IMPORTING = VersionState.READY, VersionState.FAILED, VersionState.IMPORTING


def test_a_bare_name_means_the_newest_ready_version() -> None:
    models = catalogue(READY, READY, FAILED, IMPORTING)
    assert models.ready(parse_ref("team/shapes")).key.number == 2
    assert models.ready(parse_ref("team/shapes@1")).key.number == 1
    assert [v.key.number for v in models.versions(parse_ref("team/shapes"))] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("reference", "kind", "says"),
    [
        ("team/shapes@4", errors.ModelNotReady, "IMPORTING"),
        ("team/shapes@3", errors.ModelImportFailed, "ARTIFACT_UNSAFE: it runs code"),
        ("team/shapes@9", errors.VersionNotFound, "4, 3, 2, 1"),
        ("team/shapes:live", errors.AliasNotFound, "team/shapes@<version>"),
        ("team/shape", errors.ModelNotFound, "did you mean team/shapes"),
        ("nothing", errors.ModelNotFound, "list the models"),
    ],
)
def test_what_can_not_be_resolved_says_why(
    reference: str, kind: type[errors.YolopoolError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        catalogue(READY, READY, FAILED, IMPORTING).ready(parse_ref(reference))
    assert says in caught.value.message


STABLE = Alias("team/shapes", "stable", (Target(2, 950), Target(1, 50)), 600.0, 0.0)


def named(*states: VersionState) -> Catalogue:
    return Catalogue(catalogue(*states).models["team/shapes"], {STABLE.key: STABLE})


def test_an_alias_means_its_heaviest_version_or_the_one_at_a_point() -> None:
    models, ref = named(READY, READY, READY), parse_ref("team/shapes:stable")
    assert models.find(ref).key.number == 2
    assert [v.key.number for v in models.meant(ref)] == [2, 1]
    assert [v.key.number for v in models.versions(ref)] == [2, 1]
    drawn = [models.ready(ref, point).key.number for point in range(1000)]
    assert (drawn.count(2), drawn.count(1)) == (950, 50)
    assert models.default("team/shapes") == models.ready(parse_ref("team/shapes@3"))


def test_what_an_alias_means_may_be_unusable() -> None:
    ref = parse_ref("team/shapes:stable")
    with pytest.raises(errors.ModelImportFailed):
        named(READY, FAILED).ready(ref)
    with pytest.raises(errors.VersionNotFound):
        named(READY).ready(ref)
    assert named(READY, FAILED).ready(ref, 999).key.number == 1
    with pytest.raises(errors.ModelNotFound):
        Catalogue().ready(ref)
    with pytest.raises(errors.AliasNotFound) as caught:
        named(READY, READY).ready(parse_ref("team/shapes:live"))
    assert "use team/shapes:stable" in caught.value.message


def test_a_build_is_named_by_an_alias_of_its_model() -> None:
    build = replace(version("x"), key=key("team/shapes+onnx-fp32-cpu", 2))
    models = Catalogue(
        [*catalogue(READY, READY).models["team/shapes"], build], {STABLE.key: STABLE}
    )
    assert models.ready(parse_ref("team/shapes+onnx-fp32-cpu:stable")).key == build.key


def test_a_model_with_no_ready_version_says_where_its_newest_stands() -> None:
    with pytest.raises(errors.ModelImportFailed):
        catalogue(FAILED).ready(parse_ref("team/shapes"))
    with pytest.raises(errors.ModelNotReady):
        catalogue(FAILED, IMPORTING).ready(parse_ref("team/shapes"))
    with pytest.raises(errors.ModelNotFound, match="none is registered"):
        catalogue().ready(parse_ref("shapes"))


def test_names_are_those_of_models_and_not_of_their_builds() -> None:
    models = catalogue(READY)
    for name in ("b", "a", "a+torch-bf16-cpu"):
        models.put(replace(version("x"), key=key(name, 1)))
    assert models.names() == ["a", "b", "team/shapes"]
    assert models.count() == 3


def gated(number: int, map50_95: float | None, created: float = 10.0) -> ModelVersion:
    found = Validation("zip", 1.0, map50_95=map50_95) if map50_95 is not None else None
    made = replace(version("a"), key=key("a", number), created_unix_s=created)
    return replace(made, validation=found)


@pytest.mark.parametrize(
    ("versions", "means"),
    [
        ([gated(1, 0.9), gated(2, 0.9)], 2),
        ([gated(1, 0.9), gated(2, 0.1)], 1),
        ([gated(1, 0.9), gated(2, None)], 1),
        # From before the gate: it serves until somebody knows better.
        ([gated(1, 0.9, 1.0), gated(2, None, 1.0)], 2),
        ([gated(1, None, 1.0), gated(2, 0.1), gated(3, None)], 1),
        # A gate takes no model out of service.
        ([gated(1, 0.1), gated(2, 0.2)], 2),
        ([gated(1, None), gated(2, None)], 2),
    ],
)
def test_a_bare_name_means_the_newest_that_its_gate_does_not_hold_back(
    versions: list[ModelVersion], means: int
) -> None:
    rules = {"a": ModelRule("a", Gate("zip", 0.5, since_unix_s=5.0))}
    models = Catalogue(versions, rules=rules)
    assert models.ready(parse_ref("a")).key.number == means
    assert models.ready(parse_ref(f"a@{versions[-1].key.number}")) == versions[-1]
    del rules["a"]
    models.regard("a")
    assert models.ready(parse_ref("a")).key.number == len(versions)


# --- families -------------------------------------------------------------------------------------


def of(*versions: ModelVersion, **families: Family) -> Catalogue:
    """`families`: by the name of their alias of `site`, with the task and classes of `version`."""
    task, classes = "detect", classes_of(version("x"))
    aliases = [
        Alias("site", name, (), 600.0, 0.0, family=replace(one, task=task, classes=classes))
        for name, one in families.items()
    ]
    return Catalogue(versions, {alias.key: alias for alias in aliases})


def members_of(models: Catalogue, alias: str) -> list[str]:
    family = models.family(parse_ref(alias))
    assert family is not None
    return [
        str(one.key) if isinstance(one, ModelVersion) else one.error.message
        for one in models.members(family)
    ]


def sizes(*models: str) -> Family:
    return Family(tuple(map(Member, models)))


DAY = Family((Member("site:sizes", "06:00"), Member("b", "22:00")))


def test_a_family_of_a_model_without_versions_means_its_largest_member() -> None:
    models = of(version("n"), version("s"), any=sizes("n", "s"))
    assert models.ready(parse_ref("site:any")).key == key("s")
    assert [one.key for one in models.versions(parse_ref("site:any"))] == [key("n"), key("s")]
    assert [one.key for one in models.meant(parse_ref("site:any"))] == [key("s"), key("n")]
    assert models.family(parse_ref("n")) is None
    with pytest.raises(errors.ModelNotFound):
        models.find(parse_ref("site:other"))
    with pytest.raises(errors.AliasNotFound, match="no builds"):
        models.find(parse_ref("site+onnx-int8-cpu:any"))


def test_a_member_that_can_not_answer_is_left_out_and_says_why() -> None:
    other = version("m")
    assert other.pack is not None
    other = replace(other, pack=replace(other.pack, class_names=("z",)))
    versions = (version("n"), version("s", state=IMPORTING), other)
    models = of(*versions, any=sizes("n", "s", "m", "gone", "n@7"))
    told = members_of(models, "site:any")
    assert told[0] == "n@1"
    for said, why in zip(
        told[1:],
        ("IMPORTING", "other classes", "no model 'gone'", "n@7 does not exist"),
        strict=True,
    ):
        assert why in said
    assert models.ready(parse_ref("site:any")).key == key("n")


def test_where_no_member_can_answer_it_says_why() -> None:
    models = of(version("s", state=IMPORTING), any=sizes("gone", "s"))
    with pytest.raises(errors.ModelNotReady):
        models.find(parse_ref("site:any"))


def test_a_part_of_the_day_may_be_a_family_of_sizes_and_nothing_deeper() -> None:
    versions = (version("n"), version("s"), version("b"))
    models = of(*versions, sizes=sizes("n", "s"), any=DAY, deep=sizes("site:any", "n"))
    assert members_of(models, "site:any") == ["s@1", "b@1"]
    assert models.behind("site:any") == {"n", "s", "b", "site"}
    told = members_of(models, "site:deep")
    assert "site:any is a family itself" in told[0]
    assert told[1] == "n@1"


def test_families_in_a_circle_end() -> None:
    one = Family((Member("site:two", "06:00"), Member("n", "22:00")))
    two = Family((Member("site:one", "06:00"), Member("n", "22:00")))
    models = of(version("n"), one=one, two=two, self=sizes("site:self", "n"))
    for alias in ("site:one", "site:two", "site:self"):
        assert "is a family itself" in members_of(models, alias)[0]
        assert models.find(parse_ref(alias)).key == key("n")
        assert "n" in models.behind(alias)


@pytest.mark.parametrize("reference", ["n", "n@1", "", ":", "a:b:c", "site:other", "@@:x"])
def test_behind_what_is_no_family_there_is_nothing(reference: str) -> None:
    assert of(version("n"), any=sizes("n", "s")).behind(reference) == frozenset()
