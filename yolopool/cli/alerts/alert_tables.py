"""Tables of alerts, rules, silences and receivers, for people."""

from collections.abc import Iterable
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from yolopool.cli.event_tables import moment
from yolopool.cli.tables import plain_table
from yolopool.client.alerts.alert_records import (
    Alert,
    AlertRule,
    AlertSilence,
    AlertThreshold,
    Webhook,
)

_COLOURS = {"critical": "red", "warning": "yellow"}


def measured(value: float, unit: str) -> str:
    """A value in the unit of a rule."""
    if unit == "ratio":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if abs(value) < 10 else f"{value:.0f} s"
    return f"{value:.4g}"


def alerts(found: Iterable[Alert], units: dict[str, str]) -> Table:
    """`units`: of rules, by name. A silenced alert says so."""
    table = plain_table("STAGE", "ALERT", "ABOUT", "NOW", "SINCE", "ID")
    for one in found:
        colour = _COLOURS[one.severity] if one.stage == "FIRING" else "default"
        quiet = (
            " (silenced)" if one.silence else f" (by {one.resolved_by})" if one.resolved_by else ""
        )
        since = one.resolved_unix_s or one.fired_unix_s or one.since_unix_s
        table.add_row(
            f"[{colour}]{one.stage.lower()}[/]{escape(quiet)}",
            one.rule,
            escape(one.subject) or "-",
            measured(one.value, units.get(one.rule, "count")),
            f"{datetime.fromtimestamp(since).astimezone():%m-%d %H:%M}",
            one.id,
        )
    return table


def rules(found: Iterable[AlertRule]) -> Table:
    table = plain_table("RULE", "SEVERITY", "ABOUT", "FIRES", "FOR", "SET FOR")
    for one in found:
        sign = "<" if one.below else ">"
        table.add_row(
            one.name + ("" if one.built_in else " (Prometheus alone)"),
            one.severity,
            one.about or "-",
            f"{sign} {measured(one.threshold, one.unit)}",
            f"{one.for_s:g} s",
            escape("; ".join(_threshold(of, one) for of in one.thresholds)) or "-",
        )
    return table


def _threshold(of: AlertThreshold, rule: AlertRule) -> str:
    says = [
        "off" if of.off else "",
        measured(of.value, rule.unit) if of.value is not None else "",
        f"for {of.for_s:g} s" if of.for_s is not None else "",
    ]
    return f"{of.pattern} {' '.join(filter(None, says))}"


def silences(found: Iterable[AlertSilence]) -> Table:
    table = plain_table("ID", "RULE", "ABOUT", "UNTIL", "BY", "WHY")
    for one in found:
        table.add_row(
            one.id,
            escape(one.rule),
            escape(one.subject),
            moment(one.until_unix_s),
            escape(one.by),
            escape(one.why) or "-",
        )
    return table


def webhooks(found: Iterable[Webhook]) -> Table:
    table = plain_table("WEBHOOK", "TO", "FORM", "SIGNED", "FROM", "RULES", "LAST CALL")
    for one in found:
        last = moment(one.called_unix_s) if one.called_unix_s else "-"
        table.add_row(
            one.name,
            escape(one.url),
            one.form,
            "yes" if one.is_signed else "no",
            one.severity,
            escape(one.rule),
            f"{last} {escape(one.error)}".strip(),
        )
    return table
