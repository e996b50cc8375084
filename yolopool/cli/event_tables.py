"""Lines of events, and tables of explanations."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from yolopool.cli.tables import plain_table, size, state
from yolopool.client.explanations import (
    Event,
    ModelExplanation,
    PlannedStep,
    RequestTrace,
    WorkerVerdict,
)

_EVENT_COLOURS = {
    "ASSIGNED": "green", "WORKER_JOINED": "green", "WORKER_LOST": "red", "LOAD_FAILED": "red",
    "VERSION_FAILED": "red", "DIFFERENCE": "red", "WORKER_CRASHED": "red",
    "IMAGE_QUARANTINED": "red",
    "VERSION_QUARANTINED": "red",
    "ALERT_FIRING": "red", "ALERT_RESOLVED": "green",
    "GOAL_OUT_OF_REACH": "red", "GOAL_REACHED": "green",
    "PROBE_FAILED": "red", "WEBHOOK_FAILED": "red",
}  # fmt: skip
_KIND_WIDTH = len("WORKER_CORDONED")


def moment(unix_s: float) -> str:
    """A time in this machine's zone, to the second."""
    return f"{datetime.fromtimestamp(unix_s).astimezone():%Y-%m-%d %H:%M:%S}"


def event(one: Event) -> Text:
    """One line: when, what, which model and worker, why."""
    line = Text(f"{moment(one.unix_s)}  ")
    line.append(one.kind.ljust(_KIND_WIDTH), _EVENT_COLOURS.get(one.kind, "yellow"))
    about = " on ".join(filter(None, (one.model, one.worker))) or one.control_plane
    says = ": ".join(filter(None, (one.reason, one.message)))
    return line.append(f"  {about}" + (f": {says}" if says else ""))


def steps(known: Sequence[PlannedStep]) -> str:
    """A numbered line for each step."""
    if not known:
        return "nothing to do: it is already loaded as asked"
    return "\n".join(f"{number}. {step.line}" for number, step in enumerate(known, 1))


def explanation(one: ModelExplanation) -> Table:
    """Who wants a version and what a loaded replica is worth, a line for each fact."""
    facts = {
        "wanted": "\n".join(one.wants) or "no: the next request loads it",
        "waiting": one.waiting_reason,
        "aliases": "\n".join(one.aliases),
        "requests": "none recently",
    }
    if one.rate_slow:
        facts["requests"] = (
            f"{one.rate_fast:.3g}/s over 30 s, {one.rate_middle:.3g}/s over 5 min, "
            f"{one.rate_slow:.3g}/s over 1 h"
        )
        facts["estimate"] = f"{one.rate:.3g}/s, used by placement"
        facts["value"] = f"{one.value_per_gib:.3g} s of cold starts saved a second and GiB"
    return _facts(one.model, facts)


def verdicts(workers: Iterable[WorkerVerdict]) -> Table:
    """A line for each worker: whether the version is or could be there, and why."""
    rows = plain_table("WORKER", "STATE", "FITS", "NEEDS ", "FREE ", "LOAD ", "WHY")
    for verdict in workers:
        rows.add_row(
            verdict.worker,
            state(verdict.state) if verdict.state else "-",
            "yes" if verdict.feasible else "[red]no[/]",
            size(verdict.weights_bytes) if verdict.weights_bytes else "-",
            size(verdict.free_bytes),
            _ms(verdict.load_ms) if verdict.load_ms else "-",
            escape(": ".join(filter(None, (verdict.reason, verdict.why)))),
        )
    return rows


def trace(one: RequestTrace) -> Table:
    """What happened to a request, a line for each fact."""
    asked = (
        f"{one.asked}, resolved to {one.model}" if one.model not in ("", one.asked) else one.asked
    )
    found = "loaded on arrival" if one.hit else "not loaded on arrival"
    facts = {
        "when": f"{moment(one.unix_s)}, by {one.principal}",
        "model": f"{asked}; {found}",
        "outcome": one.outcome + (f": {one.message}" if one.message else ""),
        "retried": "\n".join(one.retried),
        "worker": one.worker + (f", in a batch of {one.batch_size}" if one.batch_size else ""),
        "time": f"{_ms(one.total_ms)}: load {_ms(one.load_wait_ms)}, queue {_ms(one.queue_ms)}, "
        f"device {_ms(one.inference_ms)}",
    }
    return _facts(one.request_id, facts)


def _facts(title: str, facts: dict[str, str]) -> Table:
    rows = plain_table("", "", title=f"[bold]{escape(title)}[/]")
    for name, fact in facts.items():
        if fact:
            rows.add_row(name, escape(fact))
    return rows


def _ms(value: float) -> str:
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:.3g} ms"
