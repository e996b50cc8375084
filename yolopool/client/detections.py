"""The results of a Detect as numpy arrays, with where they were computed and how long it took.

Drawing needs pillow alone; `to_supervision` and `to_pandas` need those libraries.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from yolopool.client import drawing, masks
from yolopool.client.drawing import ImageSource
from yolopool.client.export import coco, flat_rows, yolo_labels
from yolopool.client.masks import Mask
from yolopool.client.model_records import Drift, drift_of
from yolopool.v1 import detection_pb2

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a request went, in ms; `total_ms` is measured at the control plane."""

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
    """One object: `xyxy` in pixels of the original image, confidence 0..1.

    The fields of the model's task are those of Detections without the first dimension; == ignores
    them. `tracker_id` None: it is on no track.
    """

    xyxy: tuple[float, float, float, float]
    confidence: float
    class_id: int
    class_name: str
    mask: Mask | None = field(default=None, compare=False)
    keypoints: F32 | None = field(default=None, compare=False)
    xywhr: F32 | None = field(default=None, compare=False)
    corners: F32 | None = field(default=None, compare=False)
    tracker_id: int | None = None

    @property
    def corner(self) -> tuple[float, float]:
        """(x, y) of the upper left corner; of a rotated box, its uppermost corner."""
        if self.corners is None:
            return self.xyxy[0], self.xyxy[1]
        x, y = self.corners[self.corners[:, 1].argmin()].tolist()
        return x, y

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        plain: dict[str, Any] = {
            "class_id": self.class_id,
            "class_name": self.class_name,
            "confidence": round(self.confidence, 6),
            "xyxy": [round(value, 3) for value in self.xyxy],
        }
        if self.mask is not None:
            plain["segmentation"] = self.mask.to_coco()
        if self.keypoints is not None:
            plain["keypoints"] = _plain(self.keypoints)
        if self.xywhr is not None and self.corners is not None:
            plain |= {"xywhr": _plain(self.xywhr), "corners": _plain(self.corners)}
        if self.tracker_id is not None:
            plain["tracker_id"] = self.tracker_id
        return plain


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """The class of a whole image, likeliest first.

    class_id: int64 (k,); class_name: k names; probability: float32 (k,), 0..1. probabilities:
    float32 (classes,) by class id if all were asked for, otherwise (0,).
    """

    class_id: I64
    class_name: tuple[str, ...]
    probability: F32
    probabilities: F32

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        rows = zip(self.class_id.tolist(), self.class_name, self.probability.tolist(), strict=True)
        top = [
            {"class_id": class_id, "class_name": name, "probability": round(probability, 6)}
            for class_id, name, probability in rows
        ]
        return {"top": top, "probabilities": self.probabilities.tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What is on one image, most confident first.

    xyxy: float32 (n, 4) in pixels of the original image; confidence: float32 (n,), 0..1;
    class_id: int64 (n,); class_name: n names. `model` is name@version, `image_size` is
    (width, height). Indexing by a slice, a mask or indices gives Detections, by a number a
    Detection.

    Fields of one `task` only, None for the others. segment: masks, one an object (None if masks
    were turned off). pose: keypoints, float32 (n, k, 3) of x, y and visibility 0..1, or (n, k, 2)
    for a model without visibility. obb: xywhr, float32 (n, 5) of centre, width, height and
    radians, and corners, float32 (n, 4, 2); xyxy are the upright boxes around them. classify:
    classification, and no boxes.

    `drift` is the measured drift of the build that answered; None: it is exact or not compared.
    `compute_class` is the device's, e.g. amx or sm_90; empty if it is not known. `image_damage`
    says what of the image could not be read (option `accept_damaged`); empty: nothing was damaged.
    `tracker_id`, int64 (n,), is of a tracked video: the number of the object's track, -1 for none.
    """

    xyxy: F32
    confidence: F32
    class_id: I64
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
    task: str = "detect"
    masks: tuple[Mask, ...] | None = None
    keypoints: F32 | None = None
    xywhr: F32 | None = None
    corners: F32 | None = None
    classification: Classification | None = None
    tiles: int = 0
    drift: Drift | None = None
    compute_class: str = ""
    image_damage: str = ""
    tracker_id: I64 | None = None

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
                mask=None if self.masks is None else self.masks[int(key)],
                keypoints=_rows(self.keypoints, key),
                xywhr=_rows(self.xywhr, key),
                corners=_rows(self.corners, key),
                tracker_id=_track(self.tracker_id, int(key)),
            )
        chosen = np.arange(len(self))[key]
        return replace(
            self,
            xyxy=self.xyxy[chosen],
            confidence=self.confidence[chosen],
            class_id=self.class_id[chosen],
            class_name=tuple(self.class_name[index] for index in chosen),
            masks=None if self.masks is None else tuple(self.masks[index] for index in chosen),
            keypoints=_rows(self.keypoints, chosen),
            xywhr=_rows(self.xywhr, chosen),
            corners=_rows(self.corners, chosen),
            tracker_id=None if self.tracker_id is None else self.tracker_id[chosen],
        )

    def __repr__(self) -> str:
        return f"<Detections of {self.model}: {self.in_words()}; {self.timing.total_ms:.1f} ms>"

    def in_words(self) -> str:
        """How many of each class there are, or the likeliest classes of a classification."""
        if self.classification is not None:
            top = self.classification
            likeliest = zip(top.class_name, top.probability, strict=True)
            return ", ".join(f"{name} {probability:.2f}" for name, probability in likeliest)
        counts = Counter(self.class_name)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"

    def plot(self, image: ImageSource | None = None) -> Image.Image:
        """A copy of the image with the results drawn on it, by default the image that was sent.

        Raises ValueError if there is no image, or if its size is not `image_size`.
        """
        picture = drawing.picture_of(self.source if image is None else image)
        if picture.size != self.image_size:
            raise ValueError(f"the image is {picture.size}, the results are for {self.image_size}")
        return drawing.draw(self, picture)

    def save(self, path: str | Path, image: ImageSource | None = None) -> None:
        """Writes the image with the results drawn on it; the format follows the file's suffix."""
        self.plot(image).save(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON; masks as COCO's `segmentation`."""
        plain: dict[str, Any] = {
            "model": self.model,
            "task": self.task,
            "request_id": self.request_id,
            "image": {"width": self.image_size[0], "height": self.image_size[1]},
            "detections": [detection.to_dict() for detection in self],
            "variant": self.variant,
            "worker": self.worker,
            "device": self.device,
            "batch_size": self.batch_size,
            "timing": {name: round(value, 3) for name, value in self.timing.to_dict().items()},
        }
        if self.drift is not None:
            plain["drift"] = asdict(self.drift)
        if self.image_damage:
            plain["image_damage"] = self.image_damage
        if self.classification is not None:
            plain["classification"] = self.classification.to_dict()
        return plain

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each object, or for each class of a classification:
        class_id, class_name, confidence, x_min, y_min, x_max, y_max in pixels, and the fields of
        the task. Raises ImportError without that library.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame(list(flat_rows.rows(self)), columns=flat_rows.columns(self))

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """COCO's annotations of this image, one for each object: bbox (x, y, width, height), area,
        score, category_id (the class id), and segmentation or keypoints by task.

        They are numbered from `first_id`. Raises ValueError for a classification.
        """
        return list(coco.annotations(self, image_id, first_id))

    def to_yolo(self, *, with_confidence: bool = False) -> str:
        """The text of a YOLO label file, as the model library's `save_txt` writes it: a line for
        each object, places as shares of the image's sides.

        Raises ValueError for masks of run lengths, which have no outline.
        """
        return "".join(f"{line}\n" for line in yolo_labels.lines(self, with_confidence))

    def to_supervision(self, *, masks: bool = True) -> Any:
        """Converts to `supervision.Detections`; class names and the corners of rotated boxes are
        in its data.

        Masks become one bool array (n, height, width), which is large: masks=False leaves them out.
        Raises ImportError without that library.
        """
        import supervision

        data: dict[str, Any] = {"class_name": np.array(self.class_name, dtype=str)}
        if self.corners is not None:
            data["xyxyxyxy"] = self.corners.copy()
        arrays = None
        if masks and self.masks:
            arrays = np.stack([mask.to_array() for mask in self.masks])
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            mask=arrays,
            confidence=self.confidence.copy(),
            class_id=self.class_id.astype(int),
            tracker_id=None if self.tracker_id is None else self.tracker_id.astype(int),
            data=data,
        )


def from_response(
    response: detection_pb2.DetectResponse,
    source: Image.Image | bytes | None = None,
    with_masks: bool = True,
) -> Detections:
    """Reads a reply. `source` is the image that was sent, for drawing; `with_masks` says whether
    masks were asked for, which a reply without objects does not.
    """
    found, size = response.detections, (response.image_width, response.image_height)
    boxes = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for d in found]
    variant, version = response.variant, response.version
    return Detections(
        xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        confidence=np.array([d.confidence for d in found], dtype=np.float32),
        class_id=np.array([d.class_id for d in found], dtype=np.int64),
        class_name=tuple(d.class_name for d in found),
        model=f"{version.model}@{version.version}",
        image_size=size,
        variant=f"{variant.backend}/{variant.precision}/{variant.device_kind}",
        worker=response.worker,
        device=response.device,
        batch_size=response.batch_size,
        timing=Timing(*(getattr(response.timing, name) for name in Timing.__slots__)),
        request_id=response.request_id,
        source=source,
        task=response.task or "detect",
        tiles=response.tiles,
        drift=drift_of(response.drift) if response.HasField("drift") else None,
        compute_class=variant.compute_class,
        image_damage=response.image_damage,
        **_task_fields(response, size, with_masks),
    )


def _task_fields(
    response: detection_pb2.DetectResponse, size: tuple[int, int], with_masks: bool
) -> dict[str, Any]:
    """The fields of the model's task, beside boxes."""
    found = response.detections
    if response.task == "segment":
        if not with_masks or (found and not found[0].HasField("mask")):
            return {}
        return {"masks": tuple(masks.from_message(detection.mask, size) for detection in found)}
    if response.task == "pose":
        return {"keypoints": _keypoints(found)}
    if response.task == "obb":
        boxes = [detection.rotated_box for detection in found]
        rows = [(b.center_x, b.center_y, b.width, b.height, b.rotation) for b in boxes]
        corners = [tuple(box.corners) for box in boxes]
        return {
            "xywhr": np.array(rows, np.float32).reshape(-1, 5),
            "corners": np.array(corners, np.float32).reshape(-1, 4, 2),
        }
    if response.HasField("classification"):
        return {"classification": _classification(response.classification)}
    return {}


def _keypoints(found: Sequence[detection_pb2.Detection]) -> F32:
    if not found:
        return np.zeros((0, 0, 3), np.float32)
    with_visibility = all(point.HasField("visibility") for point in found[0].keypoints)
    width = 3 if with_visibility else 2
    rows = [[(p.x, p.y, p.visibility)[:width] for p in detection.keypoints] for detection in found]
    return np.array(rows, np.float32).reshape(len(found), -1, width)


def _classification(message: detection_pb2.Classification) -> Classification:
    return Classification(
        class_id=np.array([guess.class_id for guess in message.top], np.int64),
        class_name=tuple(guess.class_name for guess in message.top),
        probability=np.array([guess.probability for guess in message.top], np.float32),
        probabilities=np.array(message.probabilities, np.float32),
    )


def _rows(values: F32 | None, key: Any) -> F32 | None:
    return None if values is None else values[key]


def _track(values: I64 | None, key: int) -> int | None:
    return None if values is None or values[key] < 0 else int(values[key])


def _plain(values: F32) -> Any:
    return np.round(values.astype(float), 4).tolist()
