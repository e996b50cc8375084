"""Alerts after a look at a rule, and whom to tell of them. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from control_plane.alerts.expressions import Moment
from control_plane.alerts.history import History
from control_plane.alerts.rule import AlertRule
from control_plane.types.alerts.alert_setting import (
    AlertSetting,
    Silence,
    Threshold,
    Webhook,
    settings_of,
)
from control_plane.types.alerts.alert_state import AlertState, Look, Told, due, looked

# Of all rules together. What is beyond is not raised: a pool in which so much is wrong has said so.
MAX_ALERTS = 1000

States = Mapping[str, AlertState]


def evaluate(
    rule: AlertRule,
    history: History,
    states: States,
    settings: Mapping[str, AlertSetting],
    at: Moment,
    absent_s: float = 0.0,
) -> dict[str, AlertState | None]:
    """What changes of a rule's alerts, by key; None: it is gone. A condition that has ended counts
    once the history is as long as the rule looks back, and a subject that is not there any more
    once it is as long as `absent_s`: a process that just began knows too little.
    """
    changes: dict[str, AlertState | None] = {}
    own = {key: state for key, state in states.items() if state.rule == rule.name}
    room, covered_s = MAX_ALERTS - len(states), history.covered_s(at.monotonic_s)
    ended = Look.ENDED if covered_s >= rule.window_s else Look.UNKNOWN
    for found in rule.found(history, at, settings_of(settings, Threshold)):
        key = f"{rule.name}|{found.subject}"
        before = own.pop(key, None)
        look = Look.HOLDS if found.holds else ended
        limits = (found.value, found.threshold, found.for_s)
        after = looked(before, look, (rule.name, found.subject), *limits, at.unix_s)
        if before is None and after is not None:
            if room <= 0:
                continue
            room -= 1
        _note(changes, key, before, after, at)
    absent = ended if covered_s >= absent_s else Look.UNKNOWN
    for key, before in own.items():
        after = looked(before, absent, (rule.name, before.subject), 0, 0, 0, at.unix_s)
        _note(changes, key, before, after, at)
    return changes


def strangers(rules: Collection[str], states: States) -> dict[str, None]:
    """Alerts of rules that are no more, which go."""
    return {key: None for key, state in states.items() if state.rule not in rules}


def _note(
    changes: dict[str, AlertState | None],
    key: str,
    before: AlertState | None,
    after: AlertState | None,
    at: Moment,
) -> None:
    """A value alone may change at each look, and is no news."""
    if after == before:
        return
    if after is not None and not is_same(after, before):
        after = replace(after, changed_unix_s=at.unix_s)
    changes[key] = after


def is_same(one: AlertState, other: AlertState | None) -> bool:
    """Whether they differ in nothing but what was measured last."""
    return other is not None and replace(one, value=other.value) == other


def silence_of(
    state: AlertState, settings: Mapping[str, AlertSetting], now: float
) -> Silence | None:
    """The silence that keeps an alert from being told."""
    silences = settings_of(settings, Silence)
    return next((one for one in silences if one.covers(state.rule, state.subject, now)), None)


def deliveries(
    rules: Mapping[str, AlertRule],
    states: States,
    settings: Mapping[str, AlertSetting],
    now: float,
) -> list[tuple[AlertState, Webhook, Told]]:
    """Whom to tell what now. A silence holds back that an alert fires, not that it ended."""
    hooks = settings_of(settings, Webhook)
    found = []
    for state in states.values():
        rule = rules.get(state.rule)
        if rule is None or not hooks:
            continue
        is_silent = silence_of(state, settings, now) is not None
        for hook in hooks:
            told = due(state, hook.name) if hook.takes(rule.name, rule.severity) else None
            if told is not None and not (is_silent and told is Told.FIRING):
                found.append((state, hook, told))
    return found
