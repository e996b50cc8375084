"""`yolopool models register`: a file or training folder, and the name that people expect of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from yolopool.cli import tables
from yolopool.cli.console import (
    Address,
    AsJson,
    out,
    plain,
    print_error,
    print_json,
    progress_bar,
    say,
)
from yolopool.client.client import Client
from yolopool.client.requests import RegisterOptions
from yolopool.client.sources import fetched
from yolopool.client.training import run_folder
from yolopool.codes import CODES
from yolopool.errors import ArtifactNotFound, InvalidOption
from yolopool.labels import parse_changes
from yolopool.names import parse_class_names
from yolopool.transport import DEFAULT_ADDRESS


def models_register(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME] FILE",
            help="Model file (.pt, .onnx), the folder of a training (runs/detect/train), or a URI "
            "that the pool fetches (https://..., s3://bucket/best.pt).",
        ),
    ],
    name: Annotated[
        str,
        typer.Option("--name", help="Name of the model; by default that of the file or its data."),
    ] = "",
    image_size: Annotated[
        str, typer.Option("--imgsz", help="Longest side of an image, pixels; or HEIGHT,WIDTH.")
    ] = "",
    image_sizes: Annotated[
        list[int] | None,
        typer.Option("--also-imgsz", help="Image size that requests may ask for; repeatable."),
    ] = None,
    confidence: Annotated[
        float | None, typer.Option("--conf", help="Confidence threshold; default 0.25.")
    ] = None,
    iou: Annotated[
        float | None, typer.Option("--iou", help="NMS overlap threshold; default 0.7.")
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option("--max-det", help="Most objects in an answer; default 300.")
    ] = None,
    shape_policy: Annotated[
        str | None, typer.Option(help="Shape that images are scaled to: rect (default) or square.")
    ] = None,
    head_mode: Annotated[
        str | None, typer.Option("--head", help="Head to use: one-to-many (default) or end-to-end.")
    ] = None,
    output_layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="Output layout of an .onnx file that does not say it: objectness, plain, "
            "end-to-end or pair.",
        ),
    ] = None,
    architecture: Annotated[
        Path | None,
        typer.Option("--arch", help="Architecture (YAML), for a file that holds weights alone."),
    ] = None,
    class_names: Annotated[
        str,
        typer.Option("--names", help="Class names: a,b,... of all, or 0=a,3=b to rename some."),
    ] = "",
    signature: Annotated[
        Path | None,
        typer.Option(help="Signature of the file by minisign; default: FILE.minisig if it exists."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Label to find it by, NAME=VALUE; repeatable."),
    ] = None,
    sha256: Annotated[
        str, typer.Option("--sha256", help="Of a URI: what the file must hash to.")
    ] = "",
    profile: Annotated[
        str, typer.Option("--profile", help="Of s3://: credentials of the control plane.")
    ] = "",
    wait: Annotated[bool, typer.Option(help="Wait until the import has ended.")] = True,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Upload a model file, or have the pool fetch one."""
    names, renamed = parse_class_names(class_names)
    labels, dropped = parse_changes(label or ())
    if dropped:
        raise InvalidOption("--label takes NAME=VALUE, such as --label line=7")
    options = RegisterOptions(
        image_size=_size(image_size),
        image_sizes=image_sizes or (),
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        shape_policy=shape_policy,  # type: ignore[typeddict-item] # checked by the client
        head_mode=head_mode,  # type: ignore[typeddict-item] # checked by the client
        output_layout=output_layout,  # type: ignore[typeddict-item] # checked by the client
        architecture=architecture,
        class_names=names or renamed,
        signature=signature,
        labels=labels,
    )
    is_fetched = fetched.is_uri(given[-1])
    if not is_fetched and (sha256 or profile):
        raise InvalidOption("--sha256 and --profile are of a URI: a file here is uploaded as it is")
    model = _name(given, name)
    with Client(address) as client, progress_bar(quiet=as_json) as progress:
        if is_fetched:
            version = client.register_uri(
                model,
                given[-1],
                sha256=sha256,
                profile=profile,
                wait=wait,
                progress=progress,
                **options,
            )
        else:
            version = client.register(
                model, Path(given[-1]), wait=wait, progress=progress, **options
            )
    if as_json:
        print_json(plain(version))
    elif version.state != "FAILED":
        out.print(tables.version(version))
    if signature is not None and not version.signer and version.state != "FAILED":
        say("the pool trusts no signer: the signature was not checked")
    if version.state == "FAILED":
        print_error(f"{version.name} FAILED: {version.reason}: {version.message}")
        raise typer.Exit(CODES["INVALID_ARGUMENT"].exit_code)


def _size(text: str) -> int | tuple[int, int] | None:
    """640 or, as the model library has rectangles, height,width such as 384,640."""
    sides = [side.strip() for side in text.split(",")] if text else []
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise InvalidOption(f"--imgsz {text}: give pixels, such as 640, or HEIGHT,WIDTH")
    if len(sides) == 2:
        return int(sides[0]), int(sides[1])
    return int(sides[0]) if sides else None


def _name(given: Sequence[str], option: str) -> str:
    """The name that is given in one of both ways, or the one that people expect."""
    if len(given) > 2 or (len(given) == 2 and option):
        raise InvalidOption("give one model file, and its name once: [NAME] FILE, or --name NAME")
    if len(given) == 2 or option:
        return option or given[0]
    if fetched.is_uri(given[0]):
        raise InvalidOption("give a URI its model's name: yolopool models register NAME URI")
    run = run_folder.find(given[0])
    if not run.file.is_file():
        raise ArtifactNotFound(f"{run.file}: no such file: check the path")
    if (chosen := run.name) is None:
        raise InvalidOption(
            f"{run.file} does not say what the model is: give it a name with --name NAME"
        )
    say(f"name: {chosen.name} (from {chosen.because}; --name gives another)")
    return chosen.name
