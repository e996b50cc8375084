"""Tables of events and explanations."""

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
}  # fmt: skip
_WIDEST_KIND = len("WORKER_CORDONED")


def moment(unix_s: float) -> str:
    """In the time of this machine, to the second."""
    return f"{datetime.fromtimestamp(unix_s).astimezone():%Y-%m-%d %H:%M:%S}"


def event(one: Event) -> Text:
    """One line: when, what, of what, why."""
    line = Text(f"{moment(one.unix_s)}  ")
    line.append(one.kind.ljust(_WIDEST_KIND), _EVENT_COLOURS.get(one.kind, "yellow"))
    about = " on ".join(filter(None, (one.model, one.worker))) or one.control_plane
    says = ": ".join(filter(None, (one.reason, one.message)))
    return line.append(f"  {about}" + (f": {says}" if says else ""))


def steps(known: Sequence[PlannedStep]) -> str:
    """A numbered line a step."""
    if not known:
        return "nothing to do: it is loaded as asked"
    return "\n".join(f"{number}. {step.line}" for number, step in enumerate(known, 1))


def explanation(one: ModelExplanation) -> Table:
    """What is wanted of a version and what it is worth, a line a fact."""
    facts = {
        "wanted": "\n".join(one.wants) or "by nobody: the first request loads it",
        "waits": one.waiting_reason,
        "requests": "none lately",
    }
    if one.rate_slow:
        facts["requests"] = (
            f"{one.rate_fast:.3g}/s over 30 s, {one.rate_middle:.3g}/s over 5 min, "
            f"{one.rate_slow:.3g}/s over 1 h"
        )
        facts["estimate"] = f"{one.rate:.3g}/s, which plans go by"
        facts["value"] = f"a loaded GiB of it saves {one.value_per_gib:.3g} s of waiting a second"
    return _facts(one.model, facts)


def verdicts(workers: Iterable[WorkerVerdict]) -> Table:
    """A line a worker: whether the version is or could be there, and why."""
    rows = plain_table("WORKER", "STATE", "COULD", "NEEDS ", "FREE ", "LOAD ", "WHY")
    for one in workers:
        rows.add_row(
            one.worker,
            state(one.state) if one.state else "-",
            "yes" if one.feasible else "[red]no[/]",
            size(one.weights_bytes) if one.weights_bytes else "-",
            size(one.free_bytes),
            _ms(one.load_ms) if one.load_ms else "-",
            escape(": ".join(filter(None, (one.reason, one.why)))),
        )
    return rows


def trace(one: RequestTrace) -> Table:
    """A line a fact."""
    asked = f"{one.asked}, which was {one.model}" if one.model not in ("", one.asked) else one.asked
    found = "loaded when it came" if one.hit else "not loaded when it came"
    facts = {
        "when": f"{moment(one.unix_s)}, by {one.principal}",
        "model": f"{asked}; {found}",
        "outcome": one.outcome + (f": {one.message}" if one.message else ""),
        "tried": "\n".join(one.retried),
        "worker": one.worker + (f", with a batch of {one.batch_size}" if one.batch_size else ""),
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
