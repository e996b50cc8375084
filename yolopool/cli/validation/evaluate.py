"""`yolopool models evaluate`: how good a model is on labelled images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from yolopool.cli.console import Address, AsJson, ModelRef, out, print_json, progress_bar, say
from yolopool.cli.validation import precision_tables
from yolopool.client.client import Client
from yolopool.client.model_records import Model, ModelVersion
from yolopool.evaluation import pool_evaluation
from yolopool.evaluation.tally import Evaluation
from yolopool.transport import DEFAULT_ADDRESS


def evaluate(
    model: ModelRef,
    images: Annotated[
        Path, typer.Option("--images", help="Folder of images, and the folders in it.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Folder of YOLO labels (a .txt for each image), data.yaml or COCO .json; default: "
            "beside the images.",
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option("--curves", help="Write precision by recall of the classes to this SVG."),
    ] = None,
    as_json: AsJson = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Measure how good a model is on labelled images.

    The pool runs every image at bulk priority. The numbers are those of the model library's val.
    """
    with Client(address) as client, progress_bar(quiet=as_json) as progress:
        version = _version(client.model(model), model)
        labelled = pool_evaluation.read_folder(images, labels or images, version)
        found = pool_evaluation.evaluate(
            client, version, images, labelled, lambda share: progress(version.name, share)
        )
    names = version.class_names
    if curves is not None:
        title = f"{version.name} on {found.images} images"
        curves.write_text(precision_tables.picture(found, names, title), encoding="utf-8")
    if as_json:
        print_json(_plain(version, found))
        return
    out.print(precision_tables.summary(found), highlight=False)
    out.print()
    out.print(precision_tables.precision(found, names))
    out.print()
    out.print(precision_tables.confusion(found, names))
    if version.task in ("segment", "pose"):
        say("boxes were compared, not masks or keypoints")


def _version(known: Model, asked: str) -> ModelVersion:
    number = known.default_version or known.versions[0].number
    return next(v for v in known.versions if "@" in asked or v.number == number)


def _plain(version: ModelVersion, found: Evaluation) -> dict[str, Any]:
    """Plain numbers and strings, ready for JSON."""
    precision, names = found.precision, version.class_names
    return {
        "model": version.name,
        "task": version.task,
        "images": found.images,
        "map50": precision.map50,
        "map50_95": precision.map50_95,
        "precision": precision.precision,
        "recall": precision.recall,
        "confidence": precision.confidence,
        "classes": [
            {
                "class_id": one.class_id,
                "class_name": names[one.class_id],
                "truths": one.truths,
                "precision": one.precision,
                "recall": one.recall,
                "map50": one.ap50,
                "map50_95": one.ap50_95,
                "curve": [round(value, 6) for value in one.curve.tolist()],
            }
            for one in precision.classes
        ],
        # By the class that was found and the true one; the last of each is nothing.
        "confusion": found.confusion.tolist(),
    }
