"""Expressions: as Prometheus reads them, and what they come to here."""

from control_plane.alerts.expressions import (
    Difference,
    Increase,
    Left,
    Moment,
    Over,
    Ratio,
    Select,
    duration,
)
from control_plane.alerts.history import History

AT = Moment(100.0, 1_000_000.0)
ERRORS = Select("n_total", (("end", ("failed", "late")),))


def history() -> History:
    made = History()
    for now, scale in ((40.0, 0.0), (100.0, 1.0)):
        for plane, share in (("a", 1.0), ("b", 3.0)):
            made.add(plane, now, {
                ("n_total", (("end", "failed"), ("model", "x@1"))): 6 * scale * share,
                ("n_total", (("end", "ok"), ("model", "x@1"))): 18 * scale * share,
                ("n_total", (("end", "ok"), ("model", "y@1"))): 5 * scale * share,
                ("workers", (("state", "READY"),)): share,
                ("until", ()): 1_000_060.0,
            })  # fmt: skip
    return made


def test_a_selector() -> None:
    assert ERRORS.promql() == 'n_total{end=~"failed|late"}'
    assert Select("n_total", but=(("end", ("ok",)),)).promql() == 'n_total{end!="ok"}'
    assert Select("up").promql() == "up"
    found = Select("workers", (("state", ("READY",)),)).value(history(), AT)
    assert found == {
        (("instance", plane), ("state", "READY")): share
        for plane, share in (("a", 1.0), ("b", 3.0))
    }
    assert Select("workers", (("state", ("LOST",)),)).value(history(), AT) == {}


def test_rates_over_labels_and_their_ratio() -> None:
    failed, all_ = (Over("sum", Increase(one, 60.0, True), ("model",)) for one in
                    (ERRORS, Select("n_total")))  # fmt: skip
    ratio = Ratio(failed, all_)
    assert ratio.promql() == (
        'sum by (model) (rate(n_total{end=~"failed|late"}[1m]))\n'
        "/ sum by (model) (rate(n_total[1m]))"
    )
    assert ratio.value(history(), AT) == {(("model", "x@1"),): 0.25}
    assert failed.value(history(), AT) == {(("model", "x@1"),): 24 / 60}
    assert ratio.window_s == 60.0
    assert [one.metric for one in ratio.selects()] == ["n_total", "n_total"]


def test_nothing_to_divide_by_is_no_value() -> None:
    still = History()
    still.add("a", 100.0, {("n_total", ()): 5.0})
    part = Over("sum", Increase(Select("n_total"), 60.0))
    assert Ratio(part, part).value(still, AT) == {}
    assert Ratio(part, part).value(History(), AT) == {}


def test_differences_and_time_left() -> None:
    ready = Select("workers", (("state", ("READY",)),))
    apart = Difference(Over("max", ready), Over("min", ready))
    assert apart.value(history(), AT) == {(): 2.0}
    assert apart.promql() == 'max(workers{state="READY"}) - min(workers{state="READY"})'
    left = Left(Select("until"))
    assert left.promql() == "until - time()"
    assert set(left.value(history(), AT).values()) == {60.0}


def test_durations() -> None:
    told = {60.0: "1m", 900.0: "15m", 7200.0: "2h", 90.0: "90s", 0.0: "0s"}
    assert {seconds: duration(seconds) for seconds in told} == told
