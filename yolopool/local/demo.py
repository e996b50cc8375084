"""The demo models and sample images that ship with the product, and their first detections."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yolopool
from yolopool.client.client import Client
from yolopool.client.detections import Detections
from yolopool.errors import NotFound, YolopoolError

# A wheel carries them inside the package; a clone has them where they are made.
_PACKAGE = Path(yolopool.__file__).parent
_FOLDERS = (_PACKAGE / "demo_data", _PACKAGE.parent / "examples" / "shapes")
IMAGE_SIZE = 320
MAIN = "shapes"


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Model files by name, and sample images."""

    models: dict[str, Path]
    images: tuple[Path, ...]


def find() -> DemoFiles:
    """The demo's files. Raises FileNotFoundError where an install lacks them."""
    for folder in _FOLDERS:
        models = {path.stem: path for path in sorted((folder / "models").glob("*.pt"))}
        if MAIN in models:
            return DemoFiles(models, tuple(sorted((folder / "images").glob("*.png"))))
    raise FileNotFoundError("this install has no demo models: run with --no-demo")


def register(client: Client, name: str, path: Path) -> None:
    """Registers a demo model unless a version of it is ready. Raises YolopoolError if it fails."""
    try:
        if client.model(name).default_version:
            return
    except NotFound:
        pass
    version = client.register(name, path, image_size=IMAGE_SIZE)
    if version.state != "READY":
        raise YolopoolError(
            f"{version.name} is {version.state}: {version.reason}: {version.message}"
        )


def run(client: Client, say: Callable[[str], None]) -> list[tuple[Path, Detections]]:
    """Registers every demo model and detects on every sample image, the models in turn."""
    files = find()
    for name, path in files.models.items():
        say(f"import {name}")
        register(client, name, path)
    names = list(files.models)
    return [
        (image, client.detect(image, model=names[index % len(names)]))
        for index, image in enumerate(files.images)
    ]
