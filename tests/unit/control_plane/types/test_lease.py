"""Fencing tokens order the leaders of a fleet."""

from control_plane.types.lease import FencingToken


def test_a_later_leader_has_a_higher_token_and_a_newer_store_higher_ones_still() -> None:
    tokens = [FencingToken(2, 1), FencingToken(1, 9), FencingToken(1, 10)]
    assert [str(token) for token in sorted(tokens)] == ["1.9", "1.10", "2.1"]
