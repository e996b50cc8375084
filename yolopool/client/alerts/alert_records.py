"""Alerts: their records for callers, and the calls about them."""

from dataclasses import dataclass

from yolopool.client.calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, Call
from yolopool.v1 import alerts_pb2

# A receiver may take its time.
TEST_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Alert:
    """`subject`: the model@version, the worker or the control plane that it is about; empty: the
    pool. `value` and `threshold` are in the rule's unit; times are Unix seconds, 0: not yet.
    `silence`: the id of the silence that keeps it from being told.
    """

    id: str
    rule: str
    severity: str
    subject: str
    stage: str
    summary: str
    value: float
    threshold: float
    since_unix_s: float
    fired_unix_s: float
    resolved_unix_s: float
    resolved_by: str
    silence: str


@dataclass(frozen=True, slots=True)
class AlertThreshold:
    """What is set for the subjects that match `pattern`; None: as the rule says. `off`: never."""

    pattern: str
    value: float | None
    for_s: float | None
    off: bool


@dataclass(frozen=True, slots=True)
class AlertRule:
    """It fires while its value is above (`below`: below) `threshold` for `for_s` seconds. `about`:
    model, worker or instance; empty: the pool. `expression`: Prometheus'. Not `built_in`: only
    Prometheus can tell it.
    """

    name: str
    severity: str
    about: str
    threshold: float
    below: bool
    for_s: float
    unit: str
    summary: str
    expression: str
    built_in: bool
    thresholds: tuple[AlertThreshold, ...]


@dataclass(frozen=True, slots=True)
class AlertSilence:
    id: str
    rule: str
    subject: str
    until_unix_s: float
    why: str
    by: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver. Of its address only the host is told, and of its secret whether there is one.
    `error`: why its last call failed, empty: it did not.
    """

    name: str
    url: str
    form: str
    is_signed: bool
    severity: str
    rule: str
    called_unix_s: float
    error: str


def alerts(stage: str = "") -> Call[tuple[Alert, ...]]:
    """Alerts that are pending, that fire, and those that ended within the last hour; or those of
    one stage: pending, firing, resolved.
    """
    request = alerts_pb2.ListAlertsRequest(stage=stage)
    return Call(
        "alerts",
        "ListAlerts",
        request,
        READ_TIMEOUT_S,
        lambda reply: tuple(_alert(one) for one in reply.alerts),
    )


def alert_rules() -> Call[tuple[AlertRule, ...]]:
    """The rules, with the thresholds that are set for models and workers."""
    return Call(
        "alerts",
        "ListAlertRules",
        alerts_pb2.ListAlertRulesRequest(),
        READ_TIMEOUT_S,
        lambda reply: tuple(_rule(one) for one in reply.rules),
    )


def resolve_alert(id: str) -> Call[Alert]:
    """Ends an alert by hand: it fires again once its condition has ended and come back."""
    request = alerts_pb2.ResolveAlertRequest(id=id)
    return Call(
        "alerts", "ResolveAlert", request, CHANGE_TIMEOUT_S, lambda reply: _alert(reply.alert)
    )


def silence_alerts(
    *, rule: str = "", subject: str = "", for_s: float, why: str = ""
) -> Call[AlertSilence]:
    """Tells nobody of alerts of a rule, or about a model or worker (patterns), for so long."""
    request = alerts_pb2.SilenceAlertsRequest(rule=rule, subject=subject, for_s=for_s, why=why)
    return Call(
        "alerts", "SilenceAlerts", request, CHANGE_TIMEOUT_S, lambda reply: _silence(reply.silence)
    )


def alert_silences() -> Call[tuple[AlertSilence, ...]]:
    """Silences that have not ended."""
    return Call(
        "alerts",
        "ListSilences",
        alerts_pb2.ListSilencesRequest(),
        READ_TIMEOUT_S,
        lambda reply: tuple(_silence(one) for one in reply.silences),
    )


def end_silence(id: str) -> Call[None]:
    """Ends a silence: what fires still is told."""
    request = alerts_pb2.EndSilenceRequest(id=id)
    return Call("alerts", "EndSilence", request, CHANGE_TIMEOUT_S, lambda reply: None)


def set_alert_threshold(
    rule: str,
    pattern: str,
    *,
    value: float | None = None,
    for_s: float | None = None,
    off: bool = False,
) -> Call[AlertRule]:
    """Sets when a rule fires for the models or workers that match a pattern; with nothing else what
    was set is taken back.
    """
    threshold = alerts_pb2.AlertThreshold(
        rule=rule, pattern=pattern, value=value, for_s=for_s, off=off
    )
    request = alerts_pb2.SetAlertThresholdRequest(threshold=threshold)
    return Call(
        "alerts", "SetAlertThreshold", request, CHANGE_TIMEOUT_S, lambda reply: _rule(reply.rule)
    )


def set_webhook(
    name: str,
    url: str,
    *,
    form: str = "json",
    secret: str = "",
    severity: str = "",
    rule: str = "",
) -> Call[Webhook]:
    """Adds or replaces a receiver of alerts: of the form json or slack, from a severity on
    (critical or warning), of the rules that match a pattern.
    """
    hook = alerts_pb2.Webhook(
        name=name, url=url, form=form, secret=secret, severity=severity, rule=rule
    )
    request = alerts_pb2.SetWebhookRequest(webhook=hook)
    return Call(
        "alerts", "SetWebhook", request, CHANGE_TIMEOUT_S, lambda reply: _webhook(reply.webhook)
    )


def webhooks() -> Call[tuple[Webhook, ...]]:
    """All receivers, by name."""
    return Call(
        "alerts",
        "ListWebhooks",
        alerts_pb2.ListWebhooksRequest(),
        READ_TIMEOUT_S,
        lambda reply: tuple(_webhook(one) for one in reply.webhooks),
    )


def delete_webhook(name: str) -> Call[None]:
    """Removes a receiver."""
    request = alerts_pb2.DeleteWebhookRequest(name=name)
    return Call("alerts", "DeleteWebhook", request, CHANGE_TIMEOUT_S, lambda reply: None)


def test_webhook(name: str) -> Call[int]:
    """Sends a receiver a test, and returns the HTTP status that it answered."""
    request = alerts_pb2.TestWebhookRequest(name=name)
    return Call("alerts", "TestWebhook", request, TEST_TIMEOUT_S, lambda reply: int(reply.status))


def _alert(message: alerts_pb2.Alert) -> Alert:
    stage = alerts_pb2.AlertStage.Name(message.stage).removeprefix("ALERT_STAGE_")
    return Alert(
        message.id,
        message.rule,
        message.severity,
        message.subject,
        stage,
        message.summary,
        message.value,
        message.threshold,
        message.since_unix_s,
        message.fired_unix_s,
        message.resolved_unix_s,
        message.resolved_by,
        message.silence,
    )


def _rule(message: alerts_pb2.AlertRule) -> AlertRule:
    return AlertRule(
        message.name,
        message.severity,
        message.about,
        message.threshold,
        message.below,
        message.for_s,
        message.unit,
        message.summary,
        message.expression,
        message.built_in,
        tuple(_threshold(one) for one in message.thresholds),
    )


def _threshold(message: alerts_pb2.AlertThreshold) -> AlertThreshold:
    return AlertThreshold(
        message.pattern,
        message.value if message.HasField("value") else None,
        message.for_s if message.HasField("for_s") else None,
        message.off,
    )


def _silence(message: alerts_pb2.AlertSilence) -> AlertSilence:
    return AlertSilence(
        message.id, message.rule, message.subject, message.until_unix_s, message.why, message.by
    )


def _webhook(message: alerts_pb2.Webhook) -> Webhook:
    return Webhook(
        message.name,
        message.url,
        message.form,
        message.is_signed,
        message.severity,
        message.rule,
        message.called_unix_s,
        message.error,
    )
