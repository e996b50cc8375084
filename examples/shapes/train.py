"""Trains a demo model on the shapes of make_data.py: on one CPU core in some ten minutes.

First small pictures at a high rate, which finds the shapes; then the size it is served at, which
sharpens the boxes. Each stage stops at its time limit. Weights are saved stripped, as fp16.

    python examples/shapes/train.py build/shapes --architecture yolo11n --output shapes.pt
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of the trainer: picture size, learning rate from and to, share of the time."""

    imgsz: int
    rate: float
    final_rate: float
    scale: float
    share: float


STAGES = (Stage(160, 2e-3, 5e-4, 0.5, 0.4), Stage(320, 1e-3, 2e-5, 0.2, 0.6))
# More than the time allows: the trainer fits its learning rate to the time limit.
EPOCHS = 100
BATCH = 8
# Attributes with paths of the training machine; nobody who loads the model needs them.
PRIVATE_ARGUMENTS = ("data", "model", "pretrained", "project", "save_dir", "resume")


def prepare_library(scratch: Path) -> None:
    """Keeps the model library from the network and from the user's configuration folder."""
    os.environ.update(
        YOLO_CONFIG_DIR=str(scratch), YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", WANDB_MODE="off"
    )


def run_stage(model: Any, data: Path, stage: Stage, minutes: float, scratch: Path) -> Path:
    """Trains for a number of minutes; returns the checkpoint of the last epoch."""
    model.train(
        data=str(data / "data.yaml"),
        imgsz=stage.imgsz,
        epochs=EPOCHS,
        time=minutes / 60,
        batch=BATCH,
        nbs=BATCH,
        optimizer="AdamW",
        lr0=stage.rate,
        lrf=stage.final_rate / stage.rate,
        warmup_epochs=0.3,
        scale=stage.scale,
        mosaic=0.0,
        erasing=0.0,
        hsv_h=0.1,
        translate=0.05,
        flipud=0.5,
        fliplr=0.5,
        device="cpu",
        amp=False,
        workers=0,
        cache="ram",
        seed=0,
        val=False,
        plots=False,
        deterministic=False,
        project=str(scratch),
        name=f"stage-{stage.imgsz}",
        exist_ok=True,
    )
    return Path(model.trainer.last)


def clean(checkpoint: Path, output: Path) -> None:
    """Saves the weights without attributes that name this machine."""
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=False)
    arguments = content.get("train_args") or {}
    content["train_args"] = {k: v for k, v in arguments.items() if k not in PRIVATE_ARGUMENTS}
    model = content["model"]
    kept = getattr(model, "args", None)
    if isinstance(kept, dict):
        model.args = {k: v for k, v in kept.items() if k not in PRIVATE_ARGUMENTS}
    model.pt_path = output.name
    model.yaml["yaml_file"] = Path(str(model.yaml.get("yaml_file", ""))).name
    output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, output)


def train(data: Path, architecture: str, start: Path | None, minutes: float, output: Path) -> None:
    """Trains from random weights, or from those of `start` that fit this architecture."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prepare_library(scratch)
        import torch
        from torchvision_stub import ensure_torchvision

        ensure_torchvision()
        torch.set_num_threads(1)
        from ultralytics import YOLO

        model = YOLO(f"{architecture}.yaml")
        if start is not None:
            model.load(str(start))
        for stage in STAGES:
            last = run_stage(model, data, stage, minutes * stage.share, scratch)
            model = YOLO(str(last))
        clean(last, output)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a demo model on one CPU core.")
    parser.add_argument("data", type=Path, help="folder written by make_data.py")
    parser.add_argument("--architecture", default="yolo11n", help="yolo11n, yolov8n, yolo26n ...")
    parser.add_argument("--start", type=Path, help="a .pt whose fitting weights are taken over")
    parser.add_argument("--minutes", type=float, default=10.0, help="time of both stages")
    parser.add_argument("--output", type=Path, required=True, help="the .pt to write")
    given = parser.parse_args()
    train(given.data, given.architecture, given.start, given.minutes, given.output)


if __name__ == "__main__":
    main()
