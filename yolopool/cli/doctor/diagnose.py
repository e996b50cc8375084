"""`yolopool doctor`: names what makes requests slow, from the request log."""

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.progress import Progress

from yolopool.cli.console import AsJson, err, out, print_json, say
from yolopool.errors import InvalidOption

if TYPE_CHECKING:
    from yolopool.cli.doctor.log_files import Read
    from yolopool.doctor.finding import Finding
    from yolopool.doctor.looked import Looked

LIVE_EVERY_S = 2.0


def doctor(
    logs: Annotated[
        list[str] | None,
        typer.Argument(help="Request logs, plain or gzip; '-' reads the standard input."),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Folder of `yolopool up`, whose request log is read by default.")
    ] = Path("~/.yolopool"),
    live: Annotated[
        bool, typer.Option("--live", help="Follow the last log, and tell what is so now.")
    ] = False,
    window_s: Annotated[
        float, typer.Option("--window", help="With --live: the seconds that are looked at.", min=1)
    ] = 120.0,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as a page, with plots, to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why requests are slow, from the request log.

    Each finding has the lines it rests on, what to change, and the gain to expect. The exit status
    is 0, whatever is found.
    """
    # Here, since numpy takes a while that no other command needs.
    from yolopool.cli.doctor import log_files
    from yolopool.local.pool import REQUEST_LOG

    default = data_dir.expanduser() / "logs" / REQUEST_LOG
    files = log_files.files_of(logs or [], default)
    if live:
        if html is not None or as_json:
            raise InvalidOption("--live shows its findings in the terminal: leave the others out")
        _follow(files[-1], window_s)
        return
    looked, found, read = _diagnosed(files)
    if html is not None:
        from yolopool.cli.doctor.page import page

        html.write_text(page(looked, found, read), encoding="utf-8")
        say(f"wrote {html}")
    from yolopool.cli.doctor import report

    if as_json:
        print_json(report.as_json(looked, found, read))
    elif html is None:
        out.print(report.rendered(looked, found, read))


def _diagnosed(files: list[str]) -> "tuple[Looked, tuple[Finding, ...], Read]":
    from yolopool.cli.doctor import log_files
    from yolopool.doctor.diagnosis import findings
    from yolopool.doctor.looked import Looked
    from yolopool.doctor.rows import RowsBuilder

    builder = RowsBuilder()
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("reading", total=log_files.size_of(files) or None)
        read = log_files.read_into(builder, files, lambda size: progress.advance(task, size))
    rows = builder.rows()
    if builder.dropped:
        say(f"looked at {len(rows):,} of {len(rows) + builder.dropped:,} requests, evenly spread")
    return Looked(rows), findings(rows), read


def _follow(name: str, window_s: float) -> None:
    """Until Ctrl-C: what the requests of the last seconds say."""
    from yolopool.cli.doctor import report
    from yolopool.cli.doctor.following import Followed
    from yolopool.doctor.diagnosis import findings
    from yolopool.doctor.looked import Looked

    with (
        closing(Followed(name)) as followed,
        Live(console=out, auto_refresh=False) as shown,
    ):
        while True:
            followed.read_on()
            rows, read = followed.rows(window_s)
            shown.update(report.rendered(Looked(rows), findings(rows), read), refresh=True)
            if followed.has_ended:
                return
            time.sleep(LIVE_EVERY_S)
