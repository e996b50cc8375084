"""`yolopool top`: devices and models at a glance, updating until Ctrl-C."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from yolopool.cli.console import Address, AsJson, out, print_json
from yolopool.cli.tables import size
from yolopool.client.client import Client
from yolopool.client.fleet_records import Fleet, VersionStatistics, Worker
from yolopool.transport import DEFAULT_ADDRESS

SPARKS = "▁▂▃▄▅▆▇█"
BAR = 18
WEIGHTS, WORKSPACE, OTHERS, FREE = "█", "▓", "░", "·"
COLOURS = {"READY": "green", "DRAINING": "yellow", "STARTING": "cyan"}
# Models with requests or replicas that are shown.
MAX_MODELS = 40


@dataclass(frozen=True, slots=True)
class Glance:
    """One look at the pool."""

    fleet: Fleet
    workers: tuple[Worker, ...]
    versions: tuple[VersionStatistics, ...]


def top(
    every_s: Annotated[
        float, typer.Option("--every", help="Seconds between two looks.", min=0.2)
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look, and end.")] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show devices and models at a glance, updating until Ctrl-C.

    Rates are of the last minute. A control plane counts what came to it: give several addresses,
    separated by commas, to see what all of them do.
    """
    addresses = [one.strip() for one in address.split(",") if one.strip()]
    clients = [Client(one) for one in addresses]
    try:
        if as_json:
            print_json(asdict(look(clients)))
        elif once or not out.is_terminal:
            out.print(rendered(look(clients)))
        else:
            with Live(console=out, screen=True, auto_refresh=False) as shown:
                while True:
                    shown.update(rendered(look(clients)), refresh=True)
                    time.sleep(every_s)
    finally:
        for client in clients:
            client.close()


def look(clients: Sequence[Client]) -> Glance:
    """The pool as the first control plane has it, and the requests of all of them."""
    first = clients[0]
    told = [one for client in clients for one in client.statistics()]
    return Glance(first.fleet(), first.workers(), summed(told))


def summed(told: Iterable[VersionStatistics]) -> tuple[VersionStatistics, ...]:
    """One line a version, the busiest first. A quantile of several is the largest of theirs, and a
    mean is weighted by their answers.
    """
    by_model: dict[str, VersionStatistics] = {}
    for one in told:
        known = by_model.get(one.model)
        by_model[one.model] = one if known is None else _both(known, one)
    return tuple(sorted(by_model.values(), key=lambda one: -one.requests_per_s))


def _both(one: VersionStatistics, other: VersionStatistics) -> VersionStatistics:
    answered = [max(0.0, each.requests_per_s - each.errors_per_s) for each in (one, other)]
    requests = [each.requests_per_s for each in (one, other)]

    def mean(name: str, weights: Sequence[float]) -> float:
        values = (getattr(one, name), getattr(other, name))
        total = sum(weights) or 1.0
        return float(sum(v * w for v, w in zip(values, weights, strict=True)) / total)

    return replace(
        one,
        requests_per_s=sum(requests),
        errors_per_s=one.errors_per_s + other.errors_per_s,
        p50_ms=max(one.p50_ms, other.p50_ms),
        p99_ms=max(one.p99_ms, other.p99_ms),
        queue_ms=mean("queue_ms", answered),
        inference_ms=mean("inference_ms", answered),
        batch_size=mean("batch_size", answered),
        hit_ratio=mean("hit_ratio", requests),
        steps=tuple(map(sum, zip(one.steps, other.steps, strict=True))),
    )


def rendered(glance: Glance) -> RenderableType:
    """For a terminal."""
    note = Text("times in ms; hot: replicas on a device, of all; rates of the last minute", "dim")
    return Group(_heading(glance), _devices(glance.workers), Text(), _models(glance), note)


def _heading(glance: Glance) -> Text:
    fleet = glance.fleet
    rate = sum(one.requests_per_s for one in glance.versions)
    errors = sum(one.errors_per_s for one in glance.versions)
    text = Text.assemble(
        (f"{rate:.1f} requests/s", "bold"),
        (f", {errors:.1f} failing", "red" if errors else "dim"),
        f"; {fleet.workers_ready} of {fleet.workers} workers ready, {fleet.models} models, "
        f"{fleet.replicas_hot} replicas on devices",
    )
    if not fleet.registry_available:
        text.append("; the store is away", "bold red")
    text.append(f"\n█ weights ▓ workspace ░ other · free    {fleet.control_plane}\n", "dim")
    return text


def _devices(workers: Sequence[Worker]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("worker")
    for head in ("device", "state", "memory"):
        table.add_column(head, no_wrap=True)
    for head in ("used", "budget", "models", "open"):
        table.add_column(head, justify="right", no_wrap=True)
    for worker in workers:
        ledger = worker.ledger
        hot = sum(one.state == "HOT" for one in worker.replicas)
        table.add_row(
            _name(worker.id),
            Text(worker.device),
            Text(worker.state, COLOURS.get(worker.state, "red")),
            bar(
                ledger.weights_bytes,
                ledger.workspace_bytes,
                ledger.used_bytes,
                ledger.budget_bytes,
            ),
            size(ledger.used_bytes),
            size(ledger.budget_bytes),
            f"{hot}/{len(worker.replicas)}",
            f"{worker.outstanding}/{worker.queue_capacity}",
        )
    if not workers:
        table.add_row(Text("no worker has joined", "yellow"))
    return table


def _name(text: str) -> Text:
    """In a narrow terminal names are cut, and no figure is."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def bar(weights: int, workspace: int, used: int, budget: int) -> Text:
    """A ledger as a bar: weights, workspace, what else is used, and what is free."""
    budget = max(budget, used, 1)
    ends = [round(BAR * min(1.0, part / budget)) for part in (weights, weights + workspace, used)]
    first, second, third = ends[0], max(ends[:2]), max(ends)
    text = Text(WEIGHTS * first, "blue")
    text.append(WORKSPACE * (second - first), "cyan")
    text.append(OTHERS * (third - second), "magenta")
    text.append(FREE * (BAR - third), "dim")
    return text


def _models(glance: Glance) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model")
    table.add_column("hot", justify="right", no_wrap=True)
    for head in ("req/s", "fail/s", "p50", "p99", "queue", "pass", "batch", "hit"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("last minute", no_wrap=True)
    held: dict[str, list[str]] = {}
    for worker in glance.workers:
        for one in worker.replicas:
            held.setdefault(one.model, []).append(one.state)
    known = {one.model: one for one in glance.versions}
    names = [*known, *sorted(set(held) - set(known))]
    for name in names[:MAX_MODELS]:
        states = held.get(name, [])
        told = known.get(name)
        tier = f"{states.count('HOT')}/{len(states)}" if states else "-"
        table.add_row(
            _name(name), tier, *(_figures(told) if told is not None else ["-"] * 8 + [""])
        )
    if len(names) > MAX_MODELS:
        table.add_row(Text(f"and {len(names) - MAX_MODELS} more", "dim"))
    return table


def _figures(told: VersionStatistics) -> list[Any]:
    return [
        f"{told.requests_per_s:.1f}",
        Text(f"{told.errors_per_s:.1f}", "red" if told.errors_per_s >= 0.05 else "dim"),
        _ms(told.p50_ms),
        _ms(told.p99_ms),
        _ms(told.queue_ms),
        _ms(told.inference_ms),
        f"{told.batch_size:.1f}",
        f"{100 * told.hit_ratio:.0f}%",
        sparks(told.steps),
    ]


def sparks(values: Sequence[float]) -> str:
    """A line of bars, the highest as high as one can be."""
    most = max(values, default=0.0)
    if not most:
        return ""
    top = len(SPARKS) - 1
    return "".join(SPARKS[round(top * value / most)] if value else " " for value in values)


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
