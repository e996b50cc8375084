"""All alerts after a look: what begins, what ends, what is not known, and whom to tell."""

from dataclasses import replace
from typing import Any

from control_plane.alerts.evaluation import MAX_ALERTS, deliveries, evaluate, silence_of, strangers
from control_plane.alerts.expressions import Increase, Moment, Over, Ratio, Select
from control_plane.alerts.history import History
from control_plane.alerts.rule import AlertRule
from control_plane.types.alerts.alert_setting import AlertSetting, Silence, Threshold, Webhook
from control_plane.types.alerts.alert_state import AlertState, Stage, Told

QUEUE = AlertRule(
    "Queue", "warning", Over("max", Select("q"), ("worker",)), 10, 0, "{subject} waits", "worker"
)
COUNT = (Over("sum", Increase(Select("n_total"), 60.0), ("model",)), 20.0)
FAILS = AlertRule(
    "Fails", "critical",
    Ratio(
        Over("sum", Increase(Select("n_total", (("end", ("failed",)),)), 60.0, True), ("model",)),
        Over("sum", Increase(Select("n_total"), 60.0, True), ("model",)),
    ),
    0.1, 0, "{subject} fails", "model", least=COUNT,
)  # fmt: skip
LOW = replace(QUEUE, name="Low", below=True, threshold=1.0)


def seen(**queues: float) -> History:
    history = History()
    history.add("a", 0.0, {})
    history.add("a", 100.0, {("q", (("worker", name),)): n for name, n in queues.items()})
    return history


def after(
    history: History,
    states: dict[str, AlertState],
    settings: tuple[Any, ...] = (),
    now: float = 100.0,
    rule: AlertRule = QUEUE,
    absent_s: float = 0.0,
) -> dict[str, AlertState]:
    given: dict[str, AlertSetting] = {one.key: one for one in settings}
    at = Moment(now, now + 1000)
    changes = evaluate(rule, history, states, given, at, absent_s)
    left = {**states, **changes}
    return {key: state for key, state in left.items() if state is not None}


def test_each_subject_has_an_alert_of_its_own() -> None:
    states = after(seen(w1=11.0, w2=3.0, w3=40.0), {})
    assert sorted(states) == ["Queue|w1", "Queue|w3"]
    assert {one.stage for one in states.values()} == {Stage.FIRING}
    ended = after(seen(w1=2.0, w3=50.0), states)
    assert [ended[key].stage for key in sorted(ended)] == [Stage.RESOLVED, Stage.FIRING]
    assert ended["Queue|w3"].value == 50.0
    assert ended["Queue|w3"].changed_unix_s == states["Queue|w3"].changed_unix_s  # no news
    gone = after(seen(), states)
    assert {one.stage for one in gone.values()} == {Stage.RESOLVED}


def test_below_and_thresholds_by_the_longest_pattern() -> None:
    assert sorted(after(seen(w1=0.0, w2=1.0), {}, rule=LOW)) == ["Low|w1"]
    set_ = (Threshold("Queue", "w*", value=2.0), Threshold("Queue", "w2*", value=90.0),
            Threshold("Queue", "w3", off=True), Threshold("Other", "*", value=0.0))  # fmt: skip
    states = after(seen(w1=3.0, w2=80.0, w3=99.0), {}, set_)
    assert sorted(states) == ["Queue|w1"]
    assert states["Queue|w1"].threshold == 2.0
    later = (Threshold("Queue", "w1", for_s=30.0),)
    assert after(seen(w1=11.0), {}, later)["Queue|w1"].stage is Stage.PENDING


def test_few_requests_are_no_ratio() -> None:
    for count, fires in ((19, False), (20, True)):
        history = History()
        history.add("a", 50.0, {})
        history.add("a", 100.0, {("n_total", (("end", "failed"), ("model", "x"))): float(count)})
        assert bool(after(history, {}, rule=FAILS)) is fires


def test_a_process_that_just_began_ends_nothing_that_it_can_t_know() -> None:
    history = History()
    history.add("a", 100.0, {("n_total", (("end", "ok"), ("model", "x"))): 50.0})
    firing = {"Fails|x": AlertState("Fails", "x", Stage.FIRING, 1.0, 2.0)}
    for now in (100.0, 159.0):
        assert after(history, firing, now=now, rule=FAILS)["Fails|x"].stage is Stage.FIRING
    assert after(history, firing, now=161.0, rule=FAILS)["Fails|x"].stage is Stage.RESOLVED
    waits = {"Queue|w1": AlertState("Queue", "w1", Stage.FIRING, 1.0, 2.0)}
    history.add("a", 110.0, {})
    for now, stage in ((110.0, Stage.FIRING), (116.0, Stage.RESOLVED)):
        assert after(history, waits, now=now, absent_s=15.0)["Queue|w1"].stage is stage


def test_alerts_of_rules_that_are_no_more_go_and_there_are_not_too_many() -> None:
    old = {"Old|": AlertState("Old", "", Stage.FIRING, 1.0, 2.0)}
    assert strangers({"Queue"}, old) == {"Old|": None}
    assert after(seen(), old) == old  # another rule's are left alone
    many = seen(**{f"w{number}": 99.0 for number in range(MAX_ALERTS + 9)})
    assert len(after(many, {})) == MAX_ALERTS


def test_whom_to_tell() -> None:
    rules = {"Queue": QUEUE}
    firing = AlertState("Queue", "w1", Stage.FIRING, 1.0, 2.0)
    ops, loud = Webhook("ops", "https://x/"), Webhook("loud", "https://x/", severity="critical")
    quiet = Silence("s", "*", "w1", 50.0)
    settings: dict[str, AlertSetting] = {one.key: one for one in (ops, loud)}
    (found,) = deliveries(rules, {"Queue|w1": firing}, settings, 10.0)
    assert found == (firing, ops, Told.FIRING)
    settings[quiet.key] = quiet
    assert deliveries(rules, {"Queue|w1": firing}, settings, 10.0) == []
    assert silence_of(firing, settings, 10.0) is quiet
    assert len(deliveries(rules, {"Queue|w1": firing}, settings, 60.0)) == 1
    ended = firing.notified("ops", Told.FIRING).resolved(9.0)
    (last,) = deliveries(rules, {"Queue|w1": ended}, settings, 10.0)  # whom it was told hears it
    assert last[2] is Told.RESOLVED
