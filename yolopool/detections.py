"""What a Detect gives: boxes as numpy arrays, with where and how fast they were found.

Drawing needs pillow alone; `to_supervision` needs that library.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from yolopool.v1 import detection_pb2

# Of distinct hue and enough contrast to white letters; a class takes one by its id.
_PALETTE = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#e0700b", "#8c564b", "#c2399b", "#17899b",
    "#7f7f7f", "#8a8b1c", "#0b5d8f", "#a11d33",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a request went, in milliseconds; `total_ms` as the control plane saw it."""

    route_ms: float = 0.0
    load_wait_ms: float = 0.0
    queue_ms: float = 0.0
    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0
    total_ms: float = 0.0

    def to_dict(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Detection:
    """One box: `xyxy` in pixels of the original image, confidence 0..1."""

    xyxy: tuple[float, float, float, float]
    confidence: float
    class_id: int
    class_name: str


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes of one image, most confident first.

    xyxy: float32 (n, 4) in pixels of the original image; confidence: float32 (n,), 0..1;
    class_id: int64 (n,); class_name: n names. `model` is name@version, `image_size` is
    (width, height). Indexing by a slice, a mask or indices gives Detections, by a number a
    Detection.
    """

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    class_name: tuple[str, ...]
    model: str = ""
    image_size: tuple[int, int] = (0, 0)
    variant: str = ""
    worker: str = ""
    device: str = ""
    batch_size: int = 0
    timing: Timing = Timing()
    request_id: str = ""
    source: Image.Image | bytes | None = None

    def __len__(self) -> int:
        return len(self.class_id)

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, key: int) -> Detection: ...

    @overload
    def __getitem__(
        self, key: slice | Sequence[int] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]
    ) -> "Detections": ...

    def __getitem__(self, key: Any) -> "Detection | Detections":
        if isinstance(key, int | np.integer):
            x_min, y_min, x_max, y_max = (float(value) for value in self.xyxy[key])
            return Detection(
                (x_min, y_min, x_max, y_max),
                float(self.confidence[key]),
                int(self.class_id[key]),
                self.class_name[int(key)],
            )
        chosen = np.arange(len(self))[key]
        return replace(
            self,
            xyxy=self.xyxy[chosen],
            confidence=self.confidence[chosen],
            class_id=self.class_id[chosen],
            class_name=tuple(self.class_name[index] for index in chosen),
        )

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for name in self.class_name:
            counts[name] = counts.get(name, 0) + 1
        found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
        return f"<Detections of {self.model}: {found}; {self.timing.total_ms:.1f} ms>"

    def plot(self, image: "Image.Image | bytes | str | Path | None" = None) -> Image.Image:
        """A copy of the image with the boxes drawn; by default the image that was detected on.

        Raises ValueError if there is none, or if its size is not `image_size`.
        """
        picture = _open(self.source if image is None else image)
        if picture.size != self.image_size:
            raise ValueError(f"the image is {picture.size}, the boxes are of {self.image_size}")
        draw = ImageDraw.Draw(picture)
        scale = max(picture.size) / 640
        line, font = max(2, round(2.5 * scale)), ImageFont.load_default(max(11, 13 * scale))
        for one in reversed(list(self)):  # the most confident on top
            colour = _PALETTE[one.class_id % len(_PALETTE)]
            draw.rectangle(one.xyxy, outline=colour, width=line)
            _label(draw, one, f"{one.class_name} {one.confidence:.2f}", colour, font)
        return picture

    def save(
        self, path: str | Path, image: "Image.Image | bytes | str | Path | None" = None
    ) -> None:
        """Draws and writes; the format follows the file's ending."""
        self.plot(image).save(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {
            "model": self.model,
            "request_id": self.request_id,
            "image": {"width": self.image_size[0], "height": self.image_size[1]},
            "detections": [
                {
                    "class_id": one.class_id,
                    "class_name": one.class_name,
                    "confidence": round(one.confidence, 6),
                    "xyxy": [round(value, 3) for value in one.xyxy],
                }
                for one in self
            ],
            "variant": self.variant,
            "worker": self.worker,
            "device": self.device,
            "batch_size": self.batch_size,
            "timing": {name: round(value, 3) for name, value in self.timing.to_dict().items()},
        }

    def to_supervision(self) -> Any:
        """As `supervision.Detections`, class names in its data. Raises ImportError without it."""
        import supervision

        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.confidence.copy(),
            class_id=self.class_id.astype(int),
            data={"class_name": np.array(self.class_name, dtype=str)},
        )


def from_response(
    response: detection_pb2.DetectResponse, source: Image.Image | bytes | None = None
) -> Detections:
    """Reads an answer; `source` is the image it belongs to, for drawing."""
    found = response.detections
    boxes = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in found]
    variant, version = response.variant, response.version
    return Detections(
        xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        confidence=np.array([d.confidence for d in found], dtype=np.float32),
        class_id=np.array([d.class_id for d in found], dtype=np.int64),
        class_name=tuple(d.class_name for d in found),
        model=f"{version.model}@{version.version}",
        image_size=(response.image_width, response.image_height),
        variant=f"{variant.backend}/{variant.precision}/{variant.device_kind}",
        worker=response.worker,
        device=response.device,
        batch_size=response.batch_size,
        timing=Timing(*(getattr(response.timing, name) for name in Timing.__slots__)),
        request_id=response.request_id,
        source=source,
    )


def _open(image: Image.Image | bytes | str | Path | None) -> Image.Image:
    """A picture in RGB with EXIF orientation applied, never the caller's own."""
    if image is None:
        raise ValueError("no image to draw on: give the one the boxes were found on")
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    elif isinstance(image, str | Path):
        image = Image.open(image)
    return ImageOps.exif_transpose(image).convert("RGB")


def _label(draw: ImageDraw.ImageDraw, one: Detection, text: str, colour: str, font: Any) -> None:
    """Writes above the box, or inside it where there is no room above."""
    x, y = one.xyxy[0], one.xyxy[1]
    left, top, right, bottom = draw.textbbox((x, y), text, font=font)
    height = bottom - top + 4
    shift = -height if y >= height else 0.0
    draw.rectangle((x, y + shift, x + right - left + 6, y + shift + height), fill=colour)
    draw.text((x + 3, y + shift + 2 - (top - y)), text, fill="white", font=font)
