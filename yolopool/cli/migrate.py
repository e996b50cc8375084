"""`yolopool migrate`: takes what another server serves over into the pool."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from yolopool.cli.console import (
    Address,
    AsJson,
    out,
    plain,
    print_error,
    print_json,
    say,
)
from yolopool.client.client import Client
from yolopool.codes import CODES
from yolopool.migration import application, triton_plan
from yolopool.migration.steps import ModelPlan, command, left_out
from yolopool.migration.triton_repository import read_repository
from yolopool.transport import DEFAULT_ADDRESS

app = typer.Typer(help="Take models over from another server.", no_args_is_help=True)


@app.callback()
def _servers() -> None:
    """Take models over from another server."""


@app.command("triton")
def triton(
    repository: Annotated[
        Path, typer.Argument(metavar="REPO", help="Model repository of tritonserver.")
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Register the models; by default only show the plan.")
    ] = False,
    hot_standby: Annotated[
        bool,
        typer.Option("--hot-standby", help="Keep every model loaded and pinned, as Triton does."),
    ] = False,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Take over a model repository of Triton.

    Shows what becomes of each setting, what can't be taken and why, and the commands; --apply
    runs them.
    """
    plans = triton_plan.plan(read_repository(repository), hot_standby=hot_standby)
    if not apply:
        print_json([_plain(plan) for plan in plans]) if as_json else _print(plans)
        return
    with Client(address) as client:
        done = list(application.apply(client, plans, say))
    if as_json:
        print_json([plain(one) for one in done])
    for one in done:
        if one.error:
            print_error(f"{one.model}: {one.error}")
        elif not as_json:
            out.print(f"{one.model}: {', '.join(one.versions)}", highlight=False)
    if any(one.error for one in done):
        raise typer.Exit(CODES["INVALID_ARGUMENT"].exit_code)


def _plain(plan: ModelPlan) -> dict[str, object]:
    return {
        "source": plan.source,
        "model": plan.model,
        "commands": [command(step) for step in plan.steps],
        "lines": [plain(line) for line in plan.lines],
    }


def _print(plans: tuple[ModelPlan, ...]) -> None:
    for plan in plans:
        title = f"{plan.source} -> {plan.model}" if plan.steps else plan.source
        table = Table("where", "Triton", "here", title=title, title_justify="left", min_width=60)
        for line in plan.lines:
            text = line.becomes if line.taken else f"not taken: {line.becomes}"
            table.add_row(line.place, line.said, text, style=None if line.taken else "yellow")
        out.print(table)
    out.print()
    for plan in plans:
        for step in plan.steps:
            out.print(command(step), highlight=False, markup=False, soft_wrap=True)
    count = left_out(plans)
    say(f"{count} lines are not taken; --apply runs these commands")
