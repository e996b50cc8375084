"""`yolopool rollouts` and `yolopool models compare`: a candidate beside the stable version."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.markup import escape
from rich.table import Table

from yolopool.cli.console import (
    Address,
    AsJson,
    ModelRef,
    out,
    plain,
    print_json,
    progress_bar,
    say,
)
from yolopool.cli.event_tables import moment
from yolopool.cli.rollout.aliases import AliasRef, span
from yolopool.cli.tables import plain_table
from yolopool.client.client import Client
from yolopool.client.rollout.rollout_records import Comparison, Counted, Rollout, RolloutReport
from yolopool.client.uploads import images_in
from yolopool.errors import InvalidOption
from yolopool.evaluation import version_comparison
from yolopool.evaluation.agreement.disagreement import Tolerance
from yolopool.evaluation.version_comparison import side_by_side
from yolopool.names import ModelRef as Reference
from yolopool.names import parse_ref
from yolopool.transport import DEFAULT_ADDRESS

rollouts_app = typer.Typer(help="Try a version on a part of the requests.", no_args_is_help=True)
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        help="How far a good version may be from the stable one: unmatched=0.1; repeatable.",
    ),
]


@rollouts_app.command("start")
def start(
    alias: AliasRef,
    candidate: Annotated[
        str, typer.Argument(metavar="VERSION", help="What it goes to: 4, or NAME@4.")
    ],
    steps: Annotated[
        str,
        typer.Option("--steps", help="Its shares of the requests in percent; 0: it runs beside."),
    ] = "1,10,50,100",
    shadow: Annotated[
        float, typer.Option("--shadow", help="Percent of the requests that run on both.")
    ] = 5.0,
    samples: Annotated[
        int, typer.Option("--samples", help="Requests and images of each step, at least.", min=1)
    ] = 200,
    dwell: Annotated[
        str, typer.Option("--dwell", help="Time of each step, at least: 60s.")
    ] = "60s",
    false_alarms: Annotated[
        float,
        typer.Option("--false-alarms", help="Probability that a good version is rolled back."),
    ] = 0.01,
    allow: Allow = None,
    keep_images: Annotated[
        bool,
        typer.Option("--keep-images", help="Keep callers' images on which both disagree most."),
    ] = False,
    why: Annotated[str, typer.Option("--why", help="For the record.")] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Begin a rollout. It goes on by itself, and back by itself if the version is not good."""
    with Client(address) as client:
        begun = client.start_rollout(
            alias,
            _number(alias, candidate),
            steps=[per_mille(step) for step in steps.split(",")],
            shadow=per_mille(str(shadow)),
            min_samples=samples,
            min_s=span(dwell),
            false_alarms=false_alarms,
            tolerance=allowed(allow),
            keep_images=keep_images,
            why=why,
        )
    print_json(plain(begun)) if as_json else out.print(table(begun))


@rollouts_app.command("show")
def show(
    alias: Annotated[
        str, typer.Argument(metavar="[NAME:ALIAS]", help="Name of the model and the alias.")
    ] = "",
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Folder for pictures of the worst disagreements."),
    ] = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show the rollout of an alias and what is known, or list all rollouts."""
    with Client(address) as client:
        if not alias:
            known = client.rollouts()
            print_json([plain(one) for one in known]) if as_json else out.print(table(*known))
            return
        found = client.rollout(alias)
        if save is not None:
            _save(save, _kept_pictures(client, alias))
    if as_json:
        print_json(plain(found))
        return
    out.print(table(found.rollout))
    for line in _lines(found):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    _print(found.compared)


@rollouts_app.command("abort")
def abort(
    alias: AliasRef,
    why: Annotated[str, typer.Option("--why", help="For the record.")] = "",
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """End a rollout: the alias means again what it meant before."""
    with Client(address) as client:
        ended = client.abort_rollout(alias, why=why)
    print_json(plain(ended)) if as_json else out.print(table(ended))


def compare(
    stable: ModelRef,
    candidate: Annotated[str, typer.Argument(metavar="OTHER", help="The version beside it.")],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder of images to compare on; without: what a rollout saw."
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Folder for pictures of the worst disagreements."),
    ] = None,
    allow: Allow = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Compare what two versions find on the same images."""
    with Client(address) as client:
        if images is not None:
            found = _on_images(client, stable, candidate, images, save, allow, as_json)
        else:
            found = _in_rollout(client, stable, candidate, save)
    print_json(asdict(found)) if as_json else _print(found)


def _on_images(
    client: Client,
    stable: str,
    candidate: str,
    folder: Path,
    save: Path | None,
    allow: Sequence[str] | None,
    quiet: bool,
) -> Comparison:
    tolerance = Tolerance(**allowed(allow))
    if tolerance.fault():
        raise InvalidOption(tolerance.fault())
    with progress_bar(quiet) as told:
        found = version_comparison.compare(
            client,
            stable,
            candidate,
            images_in(folder),
            tolerance,
            lambda done: told("compare", done),
        )
    if save is not None:
        _save(
            save,
            (
                (
                    one.image.stem,
                    side_by_side(one.stable.plot(one.image), one.candidate.plot(one.image)),
                )
                for one in found.worst
            ),
        )
    return found.comparison


def _in_rollout(client: Client, stable: str, candidate: str, save: Path | None) -> Comparison:
    """What the rollout between the two versions saw."""
    refs = [parse_ref(text) for text in (stable, candidate)]
    wanted = [ref.version for ref in refs]
    for one in client.rollouts(refs[0].name):
        if one.model == refs[0].name and sorted((one.stable, one.candidate)) == sorted(
            number for number in wanted if number
        ):
            if save is not None:
                _save(save, _kept_pictures(client, one.alias))
            found = client.rollout(one.alias)
            say(f"what the rollout of {one.alias} saw ({share(one)})")
            for line in found.rollout.findings if not found.compared.measures else ():
                out.print(line, highlight=False, markup=False, soft_wrap=True)
            return found.compared
    raise InvalidOption(
        f"no rollout between {stable} and {candidate} is known: give --images FOLDER to compare on"
    )


def allowed(texts: Sequence[str] | None) -> dict[str, float]:
    """Tolerances of unmatched=0.1 and the like. Raises InvalidOption."""
    names = [one.name for one in fields(Tolerance)]
    found: dict[str, float] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if name not in names:
            raise InvalidOption(f"--allow {text!r}: write NAME=NUMBER, of {', '.join(names)}")
    return found


def per_mille(percent: str) -> int:
    """Of 2.5, 25. Raises InvalidOption."""
    try:
        found = float(percent.strip().removesuffix("%")) * 10
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1000 or abs(found - round(found)) > 1e-6:
        raise InvalidOption(f"{percent!r} is no share: write percent, such as 5 or 0.1")
    return round(found)


def _number(alias: str, candidate: str) -> int:
    """The version of 4, or of NAME@4 if the alias is of that model."""
    if candidate.isdecimal():
        return int(candidate)
    ref = parse_ref(candidate)
    if ref.version is None or ref.name != parse_ref(alias).name:
        wanted = Reference(parse_ref(alias).name, 4)
        raise InvalidOption(f"{candidate!r}: give a version of the same model, as 4 or {wanted}")
    return ref.version


def table(*known: Rollout) -> Table:
    """A line for each rollout."""
    rows = plain_table("ALIAS", "FROM", "TO", "SINCE", "NOW", "STEPS", "BY")
    for one in known:
        rows.add_row(
            escape(one.alias),
            str(one.stable),
            str(one.candidate),
            moment(one.since_unix_s),
            share(one),
            " ".join(f"{step / 10:g}%" for step in one.steps),
            escape(one.by) or "-",
        )
    return rows


def share(one: Rollout) -> str:
    """Where it is: at 10 %, or how it ended."""
    if one.outcome:
        return one.outcome.lower().replace("_", " ") + ("" if one.settled else ", moving")
    now = one.steps[one.step] if one.step < len(one.steps) else 0
    return f"at {now / 10:g} %" if now else "in shadow"


def _lines(found: RolloutReport) -> Iterator[str]:
    one = found.rollout
    yield from (f"because {reason}" for reason in one.reasons)
    if not one.outcome:
        busy = f", {found.dropped} not run (busy)" if found.dropped else ""
        yield (
            f"{found.compared.requests} requests and {found.compared.images} images compared, "
            f"{one.shadow / 10:g} % of the requests run on both{busy}"
        )
    yield from (f"waits for {need}" for need in found.waits_for)
    if one.outcome and not one.reasons:
        yield from one.findings


def _print(found: Comparison) -> None:
    if not found.measures:
        return
    out.print(measures(found))
    out.print(counts("SIZE", found.sizes, matched=True))
    if found.classes:
        out.print(counts("CLASS", found.classes, matched=False))


def measures(found: Comparison) -> Table:
    rows = plain_table("MEASURE", "FOUND", "ALLOWED", "VERDICT", "SAMPLES ")
    colours = {"WITHIN": "green", "BEYOND": "red"}
    for one in found.measures:
        colour = colours.get(one.finding, "yellow")
        verdict = f"[{colour}]{one.finding.lower()}[/]"
        rows.add_row(one.name, escape(one.value), escape(one.allowed), verdict, f"{one.samples:,}")
    return rows


def counts(title: str, rows: Sequence[Counted], *, matched: bool) -> Table:
    """Objects by size or class."""
    shown = plain_table(title, "STABLE ", "CANDIDATE ", *(["BOTH "] if matched else []))
    for one in rows:
        both = [f"{one.matched:,}"] if matched else []
        shown.add_row(escape(one.name), f"{one.stable:,}", f"{one.candidate:,}", *both)
    return shown


def _kept_pictures(client: Client, alias: str) -> Iterator[tuple[str, Image.Image]]:
    for number, one in enumerate(client.disagreements(alias), 1):
        yield f"kept-{number}", side_by_side(one.stable.plot(), one.candidate.plot())


def _save(folder: Path, pictures: Iterator[tuple[str, Image.Image]]) -> None:
    """The stable version's on the left, the worst first. Files that are there are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, (name, picture) in enumerate(pictures, 1):
        picture.save(folder / f"{count:02}-{name}.jpg", quality=92)
    say(f"{count} pictures of disagreements in {folder}" if count else "no image was kept")
