"""Tiers: the least valuable leaves first, never what is in use, and no more than must."""

from hypothesis import given
from hypothesis import strategies as st

from worker.packs.eviction import CacheEntry, Eviction, choose_evictions


def test_nothing_leaves_where_it_fits() -> None:
    assert choose_evictions([CacheEntry("a", 10, 1, 1, 0)], 5, 15) == Eviction((), enough=True)


def test_the_least_time_saved_per_byte_leaves_first() -> None:
    kept = [
        CacheEntry("asked for often", 10, 1, 9, 0),
        CacheEntry("slow to bring back", 10, 9, 1, 0),
        CacheEntry("large", 90, 9, 1, 0),
        CacheEntry("small", 10, 1, 1, 0),
    ]
    assert choose_evictions(kept, 0, 110).keys == ("large",)
    assert choose_evictions(kept, 0, 20).keys == ("large", "small")


def test_among_equals_the_one_used_longest_ago_leaves() -> None:
    kept = [CacheEntry("new", 10, 1, 0, 2), CacheEntry("old", 10, 1, 0, 1)]
    assert choose_evictions(kept, 0, 10).keys == ("old",)


def test_what_is_in_use_stays_though_it_be_too_much() -> None:
    kept = [CacheEntry("used", 10, 1, 0, 0, in_use=True), CacheEntry("idle", 10, 1, 9, 0)]
    assert choose_evictions(kept, 0, 5) == Eviction(("idle",), enough=False)


def test_of_two_asked_for_alike_the_newcomer_leaves() -> None:
    kept = [
        CacheEntry("stays", 10, 1, 1, 0, held_s=900.0),
        CacheEntry("newcomer", 10, 1, 1.2, 9, held_s=0.1),
    ]
    assert choose_evictions(kept, 0, 10).keys == ("newcomer",)
    much_more = CacheEntry("newcomer", 10, 1, 2, 9, held_s=0.1)
    assert choose_evictions([kept[0], much_more], 0, 10).keys == ("stays",)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 9), st.booleans()), max_size=8),
    st.integers(0, 60),
    st.integers(0, 200),
)
def test_what_stays_fits_and_nobody_left_for_nothing(
    drawn: list[tuple[int, float, bool]], need: int, budget: int
) -> None:
    kept = [
        CacheEntry(str(n), size, 1, heat, 0, in_use=used)
        for n, (size, heat, used) in enumerate(drawn)
    ]
    drop = choose_evictions(kept, need, budget)
    by_key = {one.key: one for one in kept}
    assert not any(by_key[key].in_use for key in drop.keys)
    stays = sum(one.size_bytes for one in kept if one.key not in drop.keys)
    assert (stays + need <= budget) == drop.enough
    if drop.keys and drop.enough:
        assert stays + need + by_key[drop.keys[-1]].size_bytes > budget
