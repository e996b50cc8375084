"""`yolopool tune`: from a p99 goal to the batching, delay and replicas that reach it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from yolopool.cli.console import Address, AsJson, ModelRef, out, plain, print_json, say
from yolopool.cli.curves import bench_curves, tune_report
from yolopool.cli.curves.bench import newest, numbers, shapes_of, shown
from yolopool.cli.curves.trial import beside_s, try_out
from yolopool.cli.curves.tune_report import Found
from yolopool.client.client import Client
from yolopool.client.fleet_records import BenchPoint
from yolopool.client.model_records import Batching, ModelVersion
from yolopool.errors import DeadlineExceeded, InvalidOption, ResourceExhausted
from yolopool.transport import DEFAULT_ADDRESS
from yolopool.tuning.pass_curve import PassCurve
from yolopool.tuning.proposal import Goal, Proposal, propose, shortfall

# The exit code where the goal can't be reached: that of no error.
OUT_OF_REACH = 9
# A trial that misses the goal says what was not predicted; it is proposed anew so often.
TRIALS = 3
# Without traffic, and without --rate: this share of what one device can answer.
ASSUMED = 0.5


def tune(
    model: ModelRef,
    p99: Annotated[str, typer.Option("--p99", help="The goal, such as 50ms or 0.2s.")],
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second to be answered; default: those of the last minute."),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Most devices to use; default: all that may hold it.", min=1)
    ] = None,
    device: Annotated[
        str, typer.Option(help="Tune for this kind of device: cpu, cuda or sim.")
    ] = "",
    batch: Annotated[str, typer.Option(help="Batch sizes, comma separated.")] = "1,2,4,8,16",
    shape: Annotated[
        str, typer.Option(help="Image sizes WIDTHxHEIGHT, comma separated; the first is tuned for.")
    ] = "",
    seconds: Annotated[float, typer.Option(help="Seconds of passes for each point.")] = 1.0,
    image: Annotated[
        Path | None, typer.Option(help="Image file to run; default: rectangles on noise.")
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Set what is proposed, and the goal, as its policy.")
    ] = False,
    check_s: Annotated[
        float,
        typer.Option("--check", help="With --store: send so many seconds of requests, and look."),
    ] = 0.0,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Deadline of the measurement, in seconds.")
    ] = 600.0,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Find batching and replicas that reach a p99 goal.

    Exit code 9: nothing that was measured reaches it; it says what comes nearest, and what would.
    """
    goal_s = _seconds(p99)
    if check_s and not store:
        raise InvalidOption("--check sends requests to what was set: give --store with it")
    if rate is not None and not rate > 0:
        raise InvalidOption(f"--rate is {rate:g}: give requests a second, above 0")
    asked = shapes_of(shape)
    with Client(address) as client:
        coming = client.bench(
            model, device_kind=device, shapes=asked, batch_sizes=numbers(batch), seconds=seconds,
            image=image, timeout_s=timeout_s,
        )  # fmt: skip
        points = newest(coming) if as_json else shown(coming)
        shapes = bench_curves.by_shape(points)
        if not shapes:
            raise ResourceExhausted(f"no point could be measured: {points[0].message}")
        if not bench_curves.is_whole(points, max(1, len(asked))):
            raise DeadlineExceeded(
                "nothing is proposed, because the sweep was cut: raise --timeout, ask for fewer "
                "points, or check that the worker is still there"
            )
        curves = {name: PassCurve.of(name, them) for name, them in shapes.items()}
        curve = next(iter(curves.values()))
        (version,) = client.model(points[0].model).versions
        if store and version.batching.get(points[0].device_kind, Batching()).fixed:
            raise InvalidOption("its passes have one fixed size: models batching --no-fixed first")
        size, seen = shapes[curve.shape][0], _rate(client, points[0].model)
        goal = Goal(
            goal_s,
            rate or seen or ASSUMED * max(map(curve.images_per_s, curve.batches)),
            devices or max(1, _devices(client, version, points[0].device_kind)),
            beside_s(client, points[0].model, image, (size.height, size.width), curve),
        )
        found = Found(goal, propose(curve, goal), None)
        if store:
            found = _stored(client, points[0], curve, found, seen, check_s, image, as_json)
    short = None if found.proposal is not None else shortfall(curves, curve, found.goal)
    if as_json:
        print_json(_as_json(points, curve, found, short, store))
    else:
        out.print(tune_report.curve(curve, found.goal, found.proposal))
        out.print(tune_report.says(found, short, points[0]), highlight=False, soft_wrap=True)
    if found.proposal is None:
        raise typer.Exit(OUT_OF_REACH)


def _stored(
    client: Client,
    point: BenchPoint,
    curve: PassCurve,
    found: Found,
    seen: float,
    check_s: float,
    image: Path | None,
    quiet: bool,
) -> Found:
    """Sets what is proposed and tries it out, if asked, beside the `seen` requests a second.

    What a trial takes longer than predicted counts as `beside_s` of the next proposal; where
    nothing reaches the goal then, the same is tried again: another program may have disturbed it.
    """
    goal, proposal = found.goal, found.proposal
    if proposal is None:
        return found
    _set(client, point, proposal, goal, quiet)
    if not check_s:
        return found
    for _ in range(TRIALS):
        trial = try_out(client.address, point, max(goal.rate - seen, 1.0), check_s, image)
        if not quiet:
            say(trial.says())
        if trial.p99_s <= goal.p99_s and not trial.failed:
            return Found(goal, proposal, trial)
        more_s = max(trial.p99_s - proposal.p99_s, 0.0)
        slower = replace(goal, beside_s=goal.beside_s + more_s)
        if (other := propose(curve, slower)) is not None and other != proposal:
            goal, proposal = slower, other
            _set(client, point, proposal, goal, quiet)
    return Found(slower, None, trial)


def _set(
    client: Client,
    point: BenchPoint,
    proposal: Proposal,
    goal: Goal,
    quiet: bool,
) -> None:
    (version,) = client.model(point.model).versions
    before = version.batching.get(point.device_kind, Batching())
    settings = replace(
        before,
        max_batch=proposal.max_batch,
        preferred_sizes=proposal.preferred_sizes,
        max_delay_ms=proposal.delay_s * 1000,
        p99_goal_ms=goal.p99_s * 1000,
    )
    client.set_batching(point.model, point.device_kind, settings)
    if proposal.replicas != version.wanted_replicas:
        client.load(point.model, replicas=proposal.replicas, pin=version.pinned)
    if not quiet:
        say(f"stored for {point.device_kind}: {tune_report.settings(proposal)}")


def _rate(client: Client, model: str) -> float:
    """Requests a second of the last minute."""
    return sum(one.requests_per_s for one in client.statistics() if one.model == model)


def _devices(client: Client, version: ModelVersion, kind: str) -> int:
    """Workers that may hold the version."""
    where = version.placement
    needed = {**({"pool": where.pool} if where.pool else {}), **where.labels}
    return sum(
        worker.device_kind == kind
        and worker.state == "READY"
        and not worker.cordoned
        and needed.items() <= worker.labels.items()
        for worker in client.workers()
    )


def _seconds(text: str) -> float:
    """Of 50ms, 0.2s or 50 (milliseconds)."""
    number, factor = text.strip().lower(), 0.001
    if number.endswith("ms"):
        number = number[:-2]
    elif number.endswith("s"):
        number, factor = number[:-1], 1.0
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:
        raise InvalidOption(f"--p99 is {text!r}: give a time up to 60 s, such as 50ms or 0.2s")
    return seconds


def _as_json(
    points: Sequence[BenchPoint], curve: PassCurve, found: Found, short: Any, stored: bool
) -> dict[str, Any]:
    proposal = found.proposal
    return {
        "model": points[0].model,
        "shape": curve.shape,
        "goal": plain(found.goal),
        "is_reached": proposal is not None,
        "proposal": plain(proposal) if proposal is not None else None,
        "stored": stored and (proposal is not None or found.trial is not None),
        "trial": plain(found.trial) if found.trial is not None else None,
        "shortfall": plain(short) if short is not None else None,
        "points": [plain(point) for point in points],
    }
