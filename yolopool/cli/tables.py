"""Tables of models, workers and the fleet, for people; they fit 80 columns."""

from collections.abc import Iterable, Mapping

from rich.markup import escape
from rich.table import Table

from yolopool.client.fleet_records import Fleet, Ledger, UnusedFile, Worker
from yolopool.client.model_records import (
    Adaption,
    Batching,
    Changeover,
    Drift,
    Model,
    ModelVersion,
    Placement,
    ServedVariant,
)
from yolopool.client.training import run_folder
from yolopool.evaluation.build_comparison import BuildComparison

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# Drift below this is noise: allocators and libraries grow and shrink by as much.
_MIN_DRIFT_BYTES = 128 * 1024**2
# How much of a process's last output is shown.
_MAX_LINES, _MAX_LINE_CHARS = 3, 120
# Facts about a training that tell one from another; the others are in --json.
_OF_TRAINING = ("model", "data", "epochs", "imgsz", "batch", "date", "best_fitness")
_COLOURS = {
    "READY": "green",
    "HOT": "green",
    "FAILED": "red",
    "LOST": "red",
    "HUNG": "red",
    "CRASH_LOOPING": "red",
}


def size(count: float) -> str:
    """A number of bytes as people read it: 10.5 MiB."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def state(word: str) -> str:
    colour = _COLOURS.get(word, "yellow")
    return f"[{colour}]{word}[/]"


def plain_table(*columns: str, title: str | None = None) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=None,
        header_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        numeric = column.endswith(" ")
        table.add_column(column.strip(), justify="right" if numeric else "left", overflow="fold")
    return table


def models(known: Iterable[Model]) -> Table:
    """A line for each version: what it is, what is wanted, and where it is loaded."""
    table = plain_table("MODEL", "STATE", "ARCHITECTURE", "SIZE ", "WANTED ", "WHERE")
    for model in known:
        for version in model.versions:
            default = " *" if version.number == model.default_version else ""
            table.add_row(
                "\n".join([version.name + default, *_labels(version.labels)]),
                _progress(version),
                version.architecture or "-",
                size(version.weights_bytes) if version.weights_bytes else "-",
                _wanted(version),
                _where(version),
            )
    return table


def _wanted(version: ModelVersion) -> str:
    words = f"{version.wanted_replicas}{' pinned' if version.pinned else ''}"
    kept = version.residency.mode
    return words if kept == "normal" else f"{words}\n{kept}"


def _progress(version: ModelVersion) -> str:
    if version.state == "IMPORTING":
        return f"{state(version.state)} {version.progress:.0%}"
    return f"{state(version.state)} {version.reason}".strip()


def _where(version: ModelVersion) -> str:
    places = [
        f"{replica.worker} {state(replica.state)}{_adapted(replica.adaption)}"
        for replica in version.replicas
    ]
    return "\n".join(places) or (
        f"waiting: {version.waiting_reason}" if version.waiting_reason else "-"
    )


def _adapted(one: Adaption | None) -> str:
    if one is None:
        return ""
    words = [f"up to {one.max_batch} images a pass, delay {one.max_delay_ms:.3g} ms for its goal"]
    if one.p99_ms:
        words.append(f"p99 {one.p99_ms:.3g} ms")
    return ", ".join(["", *words, *(["[red]out of reach[/]"] if one.is_out_of_reach else [])])


def _place(placement: Placement) -> str:
    where = {**({"pool": placement.pool} if placement.pool else {}), **placement.labels}
    words = [f"on {name}={value}" for name, value in sorted(where.items())]
    if placement.max_replicas:
        words.append(f"at most {placement.max_replicas} replicas")
    return ", ".join([*(words or ["anywhere"]), f"priority {placement.priority}"])


def _batched(kind: str, batching: Batching) -> str:
    most = batching.max_batch or "the worker's maximum of"
    words = [f"{kind}: {'exactly' if batching.fixed else 'up to'} {most} images a pass"]
    if batching.preferred_sizes:
        words.append(f"preferably {', '.join(map(str, batching.preferred_sizes))}")
    if batching.max_delay_ms:
        words.append(f"waits at most {batching.max_delay_ms:g} ms")
    if batching.queue_capacity:
        words.append(f"at most {batching.queue_capacity} queued")
    if batching.p99_goal_ms:
        words.append(f"adapted to a p99 of {batching.p99_goal_ms:g} ms")
    return ", ".join(words)


def _sides(one: ModelVersion) -> str:
    square = one.image_height == one.image_width
    return f"{one.image_size}" if square else f"{one.image_width} x {one.image_height}"


def version(one: ModelVersion) -> Table:
    """Everything about a version, a line for each fact."""
    table = plain_table("", "", title=f"[bold]{one.name}[/] {_progress(one)}")
    facts = {
        "message": one.message,
        "task": one.task,
        "architecture": one.architecture,
        "classes": f"{len(one.class_names)}: {escape(', '.join(one.class_names[:12]))}",
        "image size": f"{_sides(one)} px, {one.shape_policy}",
        "other sizes": ", ".join(f"{size} px" for size in one.image_sizes),
        "gate": _gate(one),
        "placement": _place(one.placement),
        "batching": "\n".join(_batched(kind, batch) for kind, batch in one.batching.items()),
        "thresholds": f"confidence {one.confidence:g}, iou {one.iou:g}",
        "limit": f"{one.max_detections} objects an image",
        "head": one.head_mode if one.state == "READY" else "",
        "weights": f"{size(one.weights_bytes)}, {one.parameters:,} parameters",
        "compute": f"{one.gflops:.1f} GFLOPs an image" if one.gflops else "",
        "from": escape(one.uri) + (f" (profile {escape(one.profile)})" if one.profile else ""),
        "file": f"{escape(one.source_name)} {_bytes(one.artifact_bytes)}sha256 {one.artifact[:12]}",
        "labels": escape(", ".join(f"{name}={value}" for name, value in one.labels.items())),
        "registered by": escape(one.registered.by),
        "signed by": escape(" ".join(filter(None, (one.signer, one.signed_comment)))),
        "pack": f"{_bytes(one.pack_bytes)}sha256 {one.pack[:12]}" if one.pack else "",
        "served by": "\n".join(_served(kind, by) for kind, by in one.served.items()),
        "builds": "\n".join(f"{build.name} {_progress(build)}" for build in one.builds),
        "build of": one.build_of,
        "residency": _residency(one),
        "wanted": f"{_many(one.wanted_replicas, 'replica')}{', pinned' if one.pinned else ''}",
        "where": _where(one),
        "tried": "\n".join(one.tried),
        "training": _training(one),
        "texts": ", ".join(
            f"{escape(name)} ({size(len(text))})" for name, text in one.metadata.items()
        ),
        "warnings": "\n".join(one.warnings),
    }
    for name, fact in facts.items():
        if fact:
            table.add_row(name, fact)
    return table


def _gate(one: ModelVersion) -> str:
    """How it did on labelled images, and whether that is enough."""
    found = one.validation
    if found is None:
        return one.gate_state
    told = f"mAP50-95 {found.map50_95:.4f}, mAP50 {found.map50:.4f} on {found.images} images"
    why = f"{found.reason}: {escape(found.message)}" if found.reason else told
    return f"{one.gate_state} {why}".strip()


def _training(one: ModelVersion) -> str:
    """What the file says about its training, and where its results.csv ended."""
    ended = run_folder.last_row(one.metadata.get("results.csv", ""))
    metrics = {name: value for name, value in ended.items() if name.startswith("metrics/")}
    facts = {**one.training, **metrics}
    told = [name for name in facts if name in _OF_TRAINING or name.startswith("metrics/")]
    return escape(", ".join(f"{name} {facts[name]}" for name in told))


def _bytes(count: int) -> str:
    return f"{size(count)}, " if count else ""


def _residency(one: ModelVersion) -> str:
    words = one.residency.mode
    if words == "on-demand":
        words += f", unloaded after {one.residency.idle_release_s:g} s without a request"
    return f"{words}, falls back to a CPU" if one.residency.cpu_fallback else words


def trials(tried: Mapping[str, BuildComparison], beyond: Mapping[str, str]) -> Table:
    """A line for each build: how far its results drift from the exact one, and how fast it is."""
    exact = next((trial.drift.exact for trial in tried.values()), "")
    table = plain_table(
        "BUILD", "FOUND ", "EXTRA ", "PIXELS ", "SCORE ", "mAP50-95 ", "MS ", "BOUNDS",
        title=f"compared with {exact}" if exact else None,
    )  # fmt: skip
    for name, one in tried.items():
        drift, why = one.drift, beyond[name]
        table.add_row(
            name,
            f"{drift.matched}/{drift.objects}",
            str(drift.extra),
            f"{drift.largest_px:.2f}",
            f"{drift.largest_confidence:.3f}",
            _precisions(drift),
            f"{one.exact_ms:.1f} -> {one.ms:.1f}",
            f"[red]{why}[/]" if why else "[green]within[/]",
        )
    return table


def _precisions(drift: Drift) -> str:
    if drift.map50_95 is None or drift.exact_map50_95 is None:
        return "-"
    return f"{drift.exact_map50_95:.3f} -> {drift.map50_95:.3f}"


def _served(kind: str, one: ServedVariant) -> str:
    words = f"{kind}: {one.variant}"
    if one.unchecked:
        words += " on every compute class"
    elif one.checked_on:
        words += f" on {', '.join(one.checked_on)}"
    elif not one.variant.endswith("/fp32"):
        words += " on no compute class yet"
    if one.drift is None:
        return f"{words}, not compared"
    drift = one.drift
    said = f"{drift.matched} of {drift.objects} objects, {drift.largest_px:.2f} px at most"
    more = f", mAP50-95 {_precisions(drift)}" if drift.map50_95 is not None else ""
    return f"{words}, {said}{more} on {_many(drift.images, 'image')}"


def workers(known: Iterable[Worker]) -> Table:
    """A line for each worker: device, memory ledger and loaded models."""
    table = plain_table("WORKER", "DEVICE", "STATE", "LEDGER ", "QUEUE ", "HOLDS")
    for worker in known:
        held = [
            f"{replica.model} {state(replica.state)}{' pinned' if replica.pinned else ''}"
            for replica in worker.replicas
        ]
        ledger = worker.ledger
        table.add_row(
            "\n".join([worker.id, *_labels(worker.labels), *_replaces(worker), *_exit(worker)]),
            worker.device_name or worker.device,
            state(worker.state) + ("\n[yellow]cordoned[/]" if worker.cordoned else ""),
            _ledger(ledger),
            f"{worker.outstanding}/{worker.queue_capacity}",
            "\n".join(held) or "-",
        )
    return table


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _labels(labels: Mapping[str, str]) -> list[str]:
    return [f"[dim]{escape(f'{name}={value}')}[/]" for name, value in sorted(labels.items())]


def _replaces(worker: Worker) -> list[str]:
    # Escaped: it is another process's text.
    why = escape(worker.replaces_because)
    return [f"[yellow]replaces another: {why}[/]"] if why else []


def _exit(worker: Worker) -> list[str]:
    """How the worker's last process ended, and the last lines it wrote."""
    exit = worker.last_exit
    if exit is None:
        return []
    times = f", {exit.in_a_row} crashes in a row" if exit.in_a_row > 1 else ""
    how = f"{exit.ended} after {exit.ran_s:.1f} s{times}, restarts in {exit.restart_in_s:g} s"
    output = [line for line in exit.last_output.splitlines() if line.strip()][-_MAX_LINES:]
    return [
        f"[red]{escape(how)}[/]",
        *(f"[dim]{escape(line[:_MAX_LINE_CHARS])}[/]" for line in output),
    ]


def _ledger(ledger: Ledger) -> str:
    lines = [f"{size(ledger.used_bytes)} of {size(ledger.budget_bytes)}"]
    if ledger.foreign_bytes:
        lines.append(f"[yellow]{size(ledger.foreign_bytes)} used by others[/]")
    if ledger.drift_bytes > _MIN_DRIFT_BYTES:
        lines.append(f"[yellow]{size(ledger.drift_bytes)} not given back[/]")
    return "\n".join(lines)


def fleet(one: Fleet) -> Table:
    """Totals of the pool."""
    table = plain_table("", "")
    registry = "available" if one.registry_available else "[red]unavailable[/]: Detect goes on"
    facts = {
        "cluster": one.cluster,
        "release": one.release,
        "registry": registry,
        "leader": one.reconciler or "[yellow]none at the moment[/]",
        "models": (
            f"{one.models} ({_many(one.versions, 'version')}), "
            f"{_many(one.replicas_hot, 'replica')} hot"
        ),
        "workers": f"{one.workers_ready} of {one.workers} ready{_looping(one)}",
        "importers": str(one.importers),
        "memory": f"{size(one.used_bytes)} of {size(one.budget_bytes)}",
        "requests": f"{one.requests_total} ({one.errors_total} failed), {one.outstanding} open",
        "loads": f"{one.loads_total}, {one.releases_total} releases",
    }
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def unused(found: Iterable[UnusedFile]) -> Table:
    """A line for each stored file that no model uses, and what became of it."""
    table = plain_table("UNUSED", "NAME", "SIZE", "SINCE", "")
    for file in found:
        wait = f"kept for {file.keep_s:.0f} s more" if file.keep_s else "may be removed"
        outcome = "removed" if file.removed else wait
        name = file.name if file.kind == "leftover" else file.name[:12]
        table.add_row(file.kind, name, size(file.size_bytes), f"{file.unused_s:.0f} s", outcome)
    return table


def _looping(one: Fleet) -> str:
    count = one.workers_crash_looping
    return f", [red]{count} crash looping[/]" if count else ""


def changeover(done: Changeover) -> Table:
    """A line for each model: loaded now and where, or released."""
    table = plain_table("MODEL", "", "WANTED ", "WHERE")
    for version in done.prepared:
        table.add_row(version.name, "[green]loaded[/]", _wanted(version), _where(version))
    for name in done.released:
        table.add_row(name, "released", "", "")
    return table
