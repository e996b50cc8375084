"""Series as control planes tell them: what is now, and what counters grew by."""

from random import Random

from control_plane.alerts.history import MAX_SERIES, History, Labels, Series


def every(_: Series) -> bool:
    return True


def of(plane: str, **labels: str) -> Labels:
    return tuple(sorted({**labels, "instance": plane}.items()))


def test_growth_is_counted_from_the_first_look_and_over_a_beginning_anew() -> None:
    history = History()
    for now, value in ((0.0, 100.0), (5.0, 103.0), (10.0, 103.0), (15.0, 2.0), (20.0, 4.0)):
        history.add("a", now, {("n_total", ()): value})
    grown = {
        since: history.increase("n_total", every, since)[of("a")] for since in (-9.0, 5.0, 12.0)
    }
    assert grown == {-9.0: 7.0, 5.0: 4.0, 12.0: 4.0}
    assert history.latest("n_total", every) == {of("a"): 4.0}
    assert history.covered_s(20.0) == 20.0


def test_a_series_that_comes_later_began_at_nothing() -> None:
    history = History()
    history.add("a", 0.0, {})
    history.add("a", 5.0, {("n_total", (("k", "v"),)): 1.0})
    assert history.increase("n_total", every, 0.0) == {of("a", k="v"): 1.0}
    history.add("b", 5.0, {("n_total", (("k", "v"),)): 7.0})  # nobody looked at it before
    assert history.increase("n_total", every, 0.0)[of("b", k="v")] == 0.0


def test_what_a_look_does_not_have_is_not_there_now() -> None:
    history = History()
    history.add("a", 0.0, {("g", ()): 1.0, ("h", ()): 2.0})
    history.add("a", 5.0, {("h", ()): 2.0})
    assert history.latest("g", every) == {}
    assert history.latest("h", every) == {of("a"): 2.0}
    history.drop("a")
    assert history.latest("h", every) == {}


def test_it_forgets_what_is_older_than_rules_look_back_and_stays_bounded() -> None:
    history, random = History(kept_s=100.0), Random(3)
    total, looks = 0.0, {}
    for now in range(0, 1000, 5):
        total += random.random()
        looks[now] = total
        history.add("a", float(now), {("n_total", ()): total, ("gone", ()): 1.0} if now < 500 else
                    {("n_total", ()): total})  # fmt: skip
    track = history._planes["a"].tracks["n_total"][()]
    assert len(track.times) <= 100 / 5 + 3
    grown = history.increase("n_total", every, 995.0 - 90.0)[of("a")]
    assert abs(grown - (looks[995] - looks[905])) < 1e-9
    assert not history._planes["a"].tracks["gone"]
    many: dict[Series, float] = {("m", (("i", str(i)),)): 1.0 for i in range(MAX_SERIES + 50)}
    history.add("b", 0.0, many)
    assert len(history.latest("m", every)) == MAX_SERIES
