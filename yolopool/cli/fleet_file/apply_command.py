"""`yolopool apply` and `yolopool export`: the whole fleet as one file."""

from pathlib import Path
from typing import Annotated

import typer

from yolopool.cli.console import (
    Address,
    AsJson,
    as_line,
    exit_code,
    out,
    print_error,
    print_json,
    say,
)
from yolopool.cli.fleet_file import plan_lines
from yolopool.client.client import Client
from yolopool.client.fleet_file.application.outcome import Applied, FleetPlan
from yolopool.client.fleet_file.text.json_schema import schema
from yolopool.codes import CODES
from yolopool.errors import InvalidOption, ModelImportFailed
from yolopool.transport import DEFAULT_ADDRESS


def apply(
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="The fleet file; -: standard input.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete what the file does not name, of the sections it has."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all is imported, built and loaded.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Longest wait, in seconds.", min=0)
    ] = 3600.0,
    print_schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of such a file, and end.")
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Make the pool as a file says.

    Shows the plan, then does it. A second time changes nothing.
    """
    if print_schema:
        print_json(schema())
        return
    if not file:
        raise InvalidOption("give the fleet file with --file FILE, or --schema")
    with Client(address) as client:
        planned = client.plan_fleet(file, prune=prune)
        if not as_json:
            _print(planned)
        if dry_run:
            print_json(plan_lines.plain(planned)) if as_json else None
            return
        applied = client.apply_fleet(planned, wait=wait, told=say, timeout_s=timeout_s)
    if as_json:
        print_json({**plan_lines.plain(planned), **_plain(applied)})
    _end(planned, applied)


def _print(planned: FleetPlan) -> None:
    for line in plan_lines.lines(planned):
        style = plan_lines.STYLES.get(line[0])
        out.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    out.print(plan_lines.summary(planned.plan), highlight=False)


def _plain(applied: Applied) -> dict[str, object]:
    return {
        "done": applied.done,
        "later": applied.later,
        "errors": [
            {"line": one.line, "what": one.what, "error": as_line(one.error)}
            for one in applied.failures
        ],
    }


def _end(planned: FleetPlan, applied: Applied) -> None:
    for failure in applied.failures:
        place = f"{planned.file}:{failure.line}" if failure.line else planned.file
        print_error(f"{place}: {failure.what}: {as_line(failure.error)}")
    for line in applied.later:
        say(f"later: {line}")
    if applied.later and not applied.failures:
        say("apply the file again then, or with --wait")
    if applied.failures:
        first = applied.failures[0].error
        failed = isinstance(first, ModelImportFailed)
        raise typer.Exit(CODES["INVALID_ARGUMENT"].exit_code if failed else exit_code(first))


def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: standard output.")
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", help="Only models whose names begin with this.")
    ] = "",
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Write what the pool has as a fleet file.

    Applied to an empty pool with the same artifact store it makes the same fleet.
    """
    with Client(address) as client:
        exported = client.export_fleet(prefix)
    if output is None:
        out.file.write(exported.text)
    else:
        output.write_text(exported.text, encoding="utf-8")
    for line in exported.left_out:
        say(f"left out: {line}")
