"""What `yolopool tune` found, for a terminal: the curve at the rate, and sentences."""

from dataclasses import dataclass

from rich.text import Text

from yolopool.cli.curves.trial import Trial
from yolopool.client.fleet_records import BenchPoint
from yolopool.tuning.pass_curve import PassCurve
from yolopool.tuning.pass_queue import Batched, predicted
from yolopool.tuning.proposal import Goal, Proposal, Shortfall

BAR = 28


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it. `trial`: None if there was none."""

    goal: Goal
    proposal: Proposal | None
    trial: Trial | None


def curve(measured: PassCurve, goal: Goal, chosen: Proposal | None) -> Text:
    """A line for each batch: the p99 expected at the goal's rate, beside the goal."""
    replicas = chosen.replicas if chosen is not None else goal.devices
    rows = []
    for batch in measured.batches:
        sizes = tuple(size for size in measured.batches if size <= batch)
        expected = predicted(measured, Batched(batch, sizes), goal.rate / replicas)
        rows.append((batch, expected.p99_s + goal.beside_s if expected is not None else None))
    longest = max([goal.p99_s, *(p99_s for _, p99_s in rows if p99_s is not None)])
    many = f"{replicas} device{'s' if replicas > 1 else ''}"
    lines = Text(f"  BATCH   PASS MS   P99 MS at {goal.rate:.3g}/s on {many}\n", style="bold")
    at = round(BAR * goal.p99_s / longest)
    for batch, p99_s in rows:
        filled = round(BAR * p99_s / longest) if p99_s is not None else BAR
        bar = "".join(
            "|" if place == at - 1 else "█" if place < filled else " " for place in range(BAR)
        )
        mark = ">" if chosen is not None and batch == chosen.max_batch else " "
        style = "red" if p99_s is None or p99_s > goal.p99_s else "green" if mark == ">" else ""
        told = f"{p99_s * 1000:.1f}" if p99_s is not None else "too slow for the rate"
        pass_ms = measured.usual_of(batch) * 1000
        lines.append(f"{mark} {batch:>5} {pass_ms:>9.1f}   {bar} {told}\n", style=style)
    lines.append(
        f"  | the goal: {goal.p99_s * 1000:g} ms, of which {goal.beside_s * 1000:.1f} ms go "
    )
    lines.append("beside the wait and the pass\n")
    return lines


def settings(one: Proposal) -> str:
    """As words; the options of `models batching` and `load`."""
    sizes = ",".join(map(str, one.preferred_sizes))
    many = f"{one.replicas} replica{'s' if one.replicas > 1 else ''}"
    return f"max batch {one.max_batch}, preferred {sizes}, delay {one.delay_s * 1000:g} ms, {many}"


def says(found: Found, short: Shortfall | None, point: BenchPoint) -> Text:
    goal_ms = found.goal.p99_s * 1000
    if found.proposal is not None:
        one = found.proposal
        told = f"proposed: {settings(one)}\nexpected: p99 {one.p99_s * 1000:.3g} ms, "
        told += f"{one.images:.3g} images a pass, device {one.busy:.0%} busy"
        if found.trial is not None:
            told += f"\n{found.trial.says()}: the goal of {goal_ms:g} ms is reached"
        return Text(told)
    assert short is not None, "what has no proposal has a shortfall"
    lines = [f"a p99 of {goal_ms:g} ms can't be reached at {found.goal.rate:.3g} requests a second"]
    if found.trial is not None:
        lines.append(f"{found.trial.says()}; what was tried last stays set")
    if short.nearest is not None:
        lines.append(f"nearest: p99 {short.nearest.p99_s * 1000:.3g} ms, {settings(short.nearest)}")
    else:
        lines.append(f"{found.goal.devices} of its devices can't answer so many at any batch")
    lines += [f"would reach it: {way}" for way in _ways(short, found.goal, point)]
    return Text("\n".join(lines), style="yellow")


def _ways(short: Shortfall, goal: Goal, point: BenchPoint) -> list[str]:
    if goal.left_s <= 0:
        told = f"less than {goal.beside_s * 1000:.3g} ms beside the wait and the pass"
        return [f"{told}: ask yolopool doctor what takes them"]
    ways = [f"images of {shape}" for shape in short.shapes]
    if short.devices:
        ways.append(f"{short.devices} devices like this one")
    if short.pass_s:
        ways.append(
            f"a build whose pass of one image takes {short.pass_s * 1000:.3g} ms instead of "
            f"{point.p50_ms:.3g}: yolopool models build {point.model} --device {point.device_kind}"
        )
    if not short.shapes:
        ways.append("perhaps images smaller than those measured: --shape")
    return ways
