"""Placement: which workers it allows; batching as it is stored."""

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.policy import BatchingConfig, Placement, batching_of

LABELS = st.dictionaries(st.sampled_from(["pool", "site", "gpu"]), st.sampled_from("xy"))


@given(LABELS, LABELS)
def test_a_worker_is_allowed_if_it_has_all_that_is_asked_for(
    asked: dict[str, str], has: dict[str, str]
) -> None:
    placement = Placement(asked.get("pool", ""), {k: v for k, v in asked.items() if k != "pool"})
    assert placement.allows(has) is (asked.items() <= has.items())
    assert placement.requires == ", ".join(f"{name}={asked[name]}" for name in sorted(asked))


def test_a_record_of_a_newer_release_is_read() -> None:
    config = BatchingConfig(8, (1, 4), 2.0, 64, True)
    stored = {**asdict(config), "preferred_sizes": [1, 4], "of_a_newer_release": 1}
    assert batching_of(stored) == config
    assert batching_of({}) == BatchingConfig()
