"""Alerts and what is set for them: proto to types and back, with the checks of their messages."""

import math
from collections.abc import Mapping, Sequence

from control_plane.alerts.evaluation import silence_of
from control_plane.alerts.rule import AlertRule
from control_plane.convert.schedules import check_schedule_name
from control_plane.types.alerts.alert_setting import (
    DEFAULT_RULE,
    AlertSetting,
    Silence,
    Threshold,
    Webhook,
)
from control_plane.types.alerts.alert_state import AlertState, Stage
from yolopool.errors import InvalidOption, InvalidSchedule
from yolopool.v1 import alerts_pb2

MAX_PATTERN_CHARS, MAX_WHY_CHARS, MAX_SECRET_CHARS = 130, 500, 500
MAX_SILENCE_S, MAX_FOR_S = 366 * 86_400.0, 86_400.0
FORMS, SEVERITIES = ("json", "slack"), ("critical", "warning")

_STAGES = {
    Stage.PENDING: alerts_pb2.ALERT_STAGE_PENDING,
    Stage.FIRING: alerts_pb2.ALERT_STAGE_FIRING,
    Stage.RESOLVED: alerts_pb2.ALERT_STAGE_RESOLVED,
}
_ORDER = {Stage.FIRING: 0, Stage.PENDING: 1, Stage.RESOLVED: 2}


def stage_in(word: str) -> Stage | None:
    """None: all. Raises InvalidOption."""
    if not word:
        return None
    try:
        return Stage(word.upper())
    except ValueError:
        raise InvalidOption("stage: give pending, firing or resolved") from None


def alerts_out(
    states: Sequence[AlertState],
    rules: Mapping[str, AlertRule],
    settings: Mapping[str, AlertSetting],
    now: float,
) -> list[alerts_pb2.Alert]:
    """The most serious first."""
    known = [state for state in states if state.rule in rules]

    def order(state: AlertState) -> tuple[int, int, float]:
        severity = SEVERITIES.index(rules[state.rule].severity)
        return (_ORDER[state.stage], severity, -state.since_unix_s)

    return [alert_out(one, rules[one.rule], settings, now) for one in sorted(known, key=order)]


def alert_out(
    state: AlertState, rule: AlertRule, settings: Mapping[str, AlertSetting], now: float
) -> alerts_pb2.Alert:
    silence = silence_of(state, settings, now)
    return alerts_pb2.Alert(
        id=state.id,
        rule=state.rule,
        severity=rule.severity,
        subject=state.subject,
        stage=_STAGES[state.stage],
        summary=rule.told(state.subject, state.threshold),
        value=state.value,
        threshold=state.threshold,
        since_unix_s=state.since_unix_s,
        fired_unix_s=state.fired_unix_s,
        resolved_unix_s=state.resolved_unix_s,
        resolved_by=state.by,
        silence=silence.id if silence is not None else "",
    )


def rule_out(rule: AlertRule, thresholds: Sequence[Threshold]) -> alerts_pb2.AlertRule:
    return alerts_pb2.AlertRule(
        name=rule.name,
        severity=rule.severity,
        about=rule.about,
        threshold=rule.threshold,
        below=rule.below,
        for_s=rule.for_s,
        unit=rule.unit,
        summary=rule.told("{" + rule.about + "}"),
        expression=rule.promql(),
        built_in=rule.built_in,
        thresholds=[threshold_out(one) for one in thresholds if one.rule == rule.name],
    )


def threshold_out(threshold: Threshold) -> alerts_pb2.AlertThreshold:
    return alerts_pb2.AlertThreshold(
        rule=threshold.rule,
        pattern=threshold.pattern,
        value=threshold.value,
        for_s=threshold.for_s,
        off=threshold.off,
    )


def threshold_in(message: alerts_pb2.AlertThreshold, rules: Mapping[str, AlertRule]) -> Threshold:
    """Raises InvalidOption."""
    if message.rule not in rules:
        raise InvalidOption(f"there is no rule {message.rule[:60]!r}: list the rules")
    value = message.value if message.HasField("value") else None
    for_s = message.for_s if message.HasField("for_s") else None
    if value is not None and not math.isfinite(value):
        raise InvalidOption("value: give a number")
    if for_s is not None and not 0.0 <= for_s <= MAX_FOR_S:
        raise InvalidOption(f"for_s: give 0 to {MAX_FOR_S:g} seconds")
    return Threshold(message.rule, _pattern("pattern", message.pattern), value, for_s, message.off)


def silence_in(request: alerts_pb2.SilenceAlertsRequest, id_: str, by: str, now: float) -> Silence:
    """Raises InvalidOption."""
    if not 0.0 < request.for_s <= MAX_SILENCE_S:
        raise InvalidOption(f"for_s: give up to {MAX_SILENCE_S:g} seconds, above 0")
    if not (request.rule or request.subject):
        raise InvalidOption("give a rule or a subject; for all of both give * as the rule")
    rule = _pattern("rule", request.rule or DEFAULT_RULE)
    subject = _pattern("subject", request.subject or "*")
    return Silence(id_, rule, subject, now + request.for_s, request.why[:MAX_WHY_CHARS], by)


def silence_out(silence: Silence) -> alerts_pb2.AlertSilence:
    return alerts_pb2.AlertSilence(
        id=silence.id,
        rule=silence.rule,
        subject=silence.subject,
        until_unix_s=silence.until_unix_s,
        why=silence.why,
        by=silence.by,
    )


def webhook_in(message: alerts_pb2.Webhook, by: str, now: float) -> Webhook:
    """Raises InvalidOption; the address is looked at by who knows the rules."""
    try:
        name = check_schedule_name(message.name)
    except InvalidSchedule as error:
        raise InvalidOption("the name of a webhook has 1 to 63 of a-z 0-9 . _ -") from error
    form, severity = message.form or FORMS[0], message.severity or SEVERITIES[-1]
    if form not in FORMS:
        raise InvalidOption(f"form: give {' or '.join(FORMS)}")
    if severity not in SEVERITIES:
        raise InvalidOption(f"severity: give {' or '.join(SEVERITIES)}")
    secret = message.secret
    if len(secret) > MAX_SECRET_CHARS or not secret.isprintable():
        raise InvalidOption(f"secret: give at most {MAX_SECRET_CHARS} printable characters")
    rule = _pattern("rule", message.rule or DEFAULT_RULE)
    return Webhook(name, message.url, form, secret, severity, rule, by, now)


def webhook_out(hook: Webhook, called_unix_s: float = 0.0, error: str = "") -> alerts_pb2.Webhook:
    """Without its secret, and of its address the host alone."""
    scheme, _, rest = hook.url.partition("://")
    host = rest.partition("/")[0].partition("?")[0]
    return alerts_pb2.Webhook(
        name=hook.name,
        url=f"{scheme}://{host}/...",
        form=hook.form,
        is_signed=bool(hook.secret),
        severity=hook.severity,
        rule=hook.rule,
        called_unix_s=called_unix_s,
        error=error,
    )


def _pattern(name: str, pattern: str) -> str:
    if not pattern or len(pattern) > MAX_PATTERN_CHARS or not pattern.isprintable():
        raise InvalidOption(f"{name}: give at most {MAX_PATTERN_CHARS} characters, with * for any")
    return pattern
