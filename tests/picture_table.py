"""The picture table of docs/images.md: what each way to send a picture gives, compared with what
the model library's `predict` sees of the same picture, pixel by pixel.

    python -m tests.picture_table          # prints it
    python -m tests.picture_table --write  # puts it into docs/images.md

A cell is one picture sent in one way: through the client's message, the control plane's checks and
the worker's decoder. No cell may differ without a sentence in EXPLAINED.
"""

import io
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pi_heif
from PIL import Image

from control_plane.convert.validation import infer_request
from tests.unit.worker.preprocess.encoded_images import ALL, BGR, DEEP, RGB, RGBA, encode
from worker.preprocess import decode
from worker.preprocess.decode import ImageLimits
from worker.preprocess.prepared import RawPixels
from worker.preprocess.preprocessor import silence_decoders
from worker.service.convert import source_of
from yolopool.client import requests
from yolopool.client.requests import DetectOptions
from yolopool.errors import YolopoolError

PAGE = Path(__file__).parents[1] / "docs" / "images.md"
BEGIN, END = "<!-- picture table -->\n", "<!-- end of the picture table -->\n"
MAX_BYTES = 10_000_000
LIMITS = ImageLimits(MAX_BYTES, 4_000_000)
ORIENTATION = 0x0112
Pixels = npt.NDArray[Any]
Give = Callable[[], Any]


@dataclass(frozen=True)
class Cell:
    """A picture as it is given to the client, and as it is given to the model library. Cells of one
    row and column are shown as one. `file` is where the same picture lies, if it came from one.
    """

    group: str
    row: str
    column: str
    ours: Give
    theirs: Give
    options: DetectOptions
    case: str = ""
    file: Path | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.row, self.column, self.case)))


_NOT_JPEG_2000 = "The pool does not read JPEG 2000. Whoever opens the file can send its pixels."
# Why a cell is not as the library has it, or not as the same picture by path: by row and column.
EXPLAINED: dict[tuple[str, str], str] = {
    ("jpeg cmyk", "PIL"): "Pillow converts CMYK by another formula than OpenCV. The model library "
    "too sees one or the other.",
    ("tiff rgba", "PIL"): "OpenCV multiplies the colours of a TIFF file by its alpha, and Pillow "
    "does not. The model library too sees one or the other.",
    ("jp2, JPEG 2000", "PIL"): _NOT_JPEG_2000,
    ("jp2, JPEG 2000", "array"): _NOT_JPEG_2000,
    ("AVIF, orientation 1 to 8", "array"): "OpenCV does not turn AVIF, and an array has no "
    "orientation.",
    ("JPEG, orientation in XMP alone", "PIL"): "Pillow turns by XMP too, and OpenCV by EXIF alone. "
    "The model library too sees one or the other.",
    ("La", "PIL"): "The model library ends with an error.",
    ("(h, w, 3) uint16, big-endian", "C order"): "The model library does not take the high byte.",
}
EXPLAINED |= {
    (row, "PIL, loaded"): why
    for (row, column), why in EXPLAINED.items()
    if column == "PIL" and row != "La"
}


# --- what is compared -------------------------------------------------------------------------


def sent(image: Any, options: DetectOptions) -> Pixels:
    """The pixels that a worker sees of what the client is given. Raises YolopoolError."""
    request, _ = requests.detect(image, "m", options)
    source = source_of(infer_request(request, request.encoded, MAX_BYTES, MAX_BYTES))
    if isinstance(source, RawPixels):
        return decode.from_raw(
            source.data, source.height, source.width, source.channel_order, LIMITS
        )
    return decode.decode(source, LIMITS).pixels


def seen_by_library(image: Any) -> Pixels | None:
    """The pixels that `predict` sees; None where it raises an error or finds no image."""
    from ultralytics.data.build import load_inference_source

    try:
        _, images, _ = next(iter(load_inference_source(image)))
        return np.asarray(images[0])
    except Exception:
        return None


def outcome(cell: Cell) -> str:
    """0 if the pixels are the library's and those of the same picture by path; else the reason of a
    refusal, or how far they are away.
    """
    try:
        ours = sent(cell.ours(), cell.options)
    except YolopoolError as error:
        return error.reason
    theirs = seen_by_library(cell.theirs())
    if theirs is None or theirs.dtype != np.uint8 or theirs.shape != ours.shape:
        return "read"
    if levels := _largest(ours, theirs):
        return f"{levels} from the library"
    try:
        by_path = ours if cell.file is None else sent(cell.file, {})
    except YolopoolError:
        return "read"
    levels = _largest(ours, by_path)
    return f"{levels} from the path" if levels else "0"


def _largest(one: Pixels, other: Pixels) -> int:
    """The largest difference of a level; 255 for pictures of different sizes."""
    if one.shape != other.shape:
        return 255
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# --- the cells --------------------------------------------------------------------------------


NOT_READ = {
    "jp2, JPEG 2000": encode(RGB, "JPEG2000"),
    "tiff of float": encode(RGB.convert("F"), "TIFF"),
}


def files(folder: Path) -> Iterator[Cell]:
    """Every file by path, bytes, PIL, and as OpenCV reads it into an array."""
    silence_decoders()
    pi_heif.register_heif_opener()
    for name, encoded in (ALL | NOT_READ).items():
        kind = re.split("[ ,]", name)[0]
        path = folder / f"{re.sub('[ ,:]', '-', name)}.{kind}"
        path.write_bytes(encoded)
        yield from _ways("Files", name, path)


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff='
    b'"http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def orientations(folder: Path) -> Iterator[Cell]:
    for kind in ("JPEG", "PNG", "WebP", "TIFF", "AVIF"):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            path = folder / f"orientation-{orientation}.{kind.lower()}"
            path.write_bytes(encode(RGB, kind.upper(), exif=exif, quality=95))
            yield from _ways("Files", f"{kind}, orientation 1 to 8", path, str(orientation))
    path = folder / "orientation-xmp.jpeg"
    path.write_bytes(encode(RGB, "JPEG", xmp=XMP, quality=95))
    yield from _ways("Files", "JPEG, orientation in XMP alone", path)


def _ways(group: str, row: str, path: Path, case: str = "") -> Iterator[Cell]:
    by_path, by_pil = partial(str, path), partial(_opened, path)
    yield Cell(group, row, "path", by_path, by_path, {}, case, path)
    yield Cell(group, row, "bytes", path.read_bytes, by_path, {}, case, path)
    yield Cell(group, row, "PIL", by_pil, by_pil, {}, case, path)
    yield Cell(group, row, "PIL, loaded", partial(_loaded, path), by_pil, {}, case, path)
    # As deep as it is, in colours or grey, and upright.
    array = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if array is not None and array.dtype in (np.uint8, np.uint16):
        yield replace(_of_array(group, row, "array", array, case=case), file=path)


def _opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def _loaded(path: Path) -> Image.Image:
    picture = _opened(path)
    picture.load()
    return picture


def _of_array(
    group: str,
    row: str,
    column: str,
    array: Pixels,
    theirs: Pixels | None = None,
    case: str = "",
    **options: Any,
) -> Cell:
    """`theirs` is the same picture as the library takes it, if it takes it otherwise."""
    given: DetectOptions = {"channel_order": "bgr", **options}  # type: ignore[typeddict-item]
    library = array if theirs is None else theirs
    return Cell(group, row, column, array.copy, library.copy, given, case)


def modes() -> Iterator[Cell]:
    """PIL images of every mode, upright and turned."""
    levels = np.ascontiguousarray(DEEP[..., 0])
    deep, twelve = Image.fromarray(levels), Image.fromarray(levels >> 4)
    plain = ("1", "L", "P", "RGB", "RGBX", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "LA")
    made: dict[str, Image.Image] = {mode: RGB.convert(mode) for mode in plain}
    made |= {
        "RGBA, transparent": RGBA,
        "P, transparent": RGBA.quantize(64),
        "PA": RGBA.convert("P").convert("PA"),
        "La": RGBA.convert("LA").convert("La"),
        "RGBa": RGBA.convert("RGBa"),
        "I;16": deep,
        "I;16B": Image.frombytes("I;16B", deep.size, levels.astype(">u2").tobytes()),
        "I": deep.convert("I"),
        "F": deep.convert("F"),
    }
    for mode, picture in made.items():
        for orientation in range(1, 9):
            turned = picture.copy()
            turned.getexif()[ORIENTATION] = orientation
            give = partial(_itself, turned)
            yield Cell("PIL images", mode, "PIL", give, give, {}, str(orientation))
    same = partial(_itself, deep)
    by_scale = partial(_itself, deep.convert("I"))
    yield Cell("PIL images", "I, bit_depth=16", "PIL", by_scale, same, {"bit_depth": 16})
    by_depth = partial(_itself, twelve)
    yield Cell("PIL images", "I;16, bit_depth=12", "PIL", by_depth, same, {"bit_depth": 12})


def _itself(picture: Image.Image) -> Image.Image:
    return picture


LAYOUTS: dict[str, Callable[[Pixels], Pixels]] = {
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "rows reversed": lambda array: array[::-1],
    "part of another": lambda array: array[3:-5, 7:-2],
}


def arrays() -> Iterator[Cell]:
    """Arrays of every shape and level, in every order of memory."""
    alpha, grey = np.full((*BGR.shape[:2], 1), 7, np.uint8), BGR[..., :1]
    deep_alpha, deep_grey = alpha.astype(np.uint16) << 8, DEEP[..., :1]
    shapes: dict[str, Pixels] = {
        "(h, w)": grey[..., 0],
        "(h, w, 1)": grey,
        "(h, w, 2)": np.dstack([grey, alpha]),
        "(h, w, 3)": BGR,
        "(h, w, 4)": np.dstack([BGR, alpha]),
        "(h, w) uint16": deep_grey[..., 0],
        "(h, w, 1) uint16": deep_grey,
        "(h, w, 2) uint16": np.dstack([deep_grey, deep_alpha]),
        "(h, w, 3) uint16": DEEP,
        "(h, w, 4) uint16": np.dstack([DEEP, deep_alpha]),
    }
    for shape, array in shapes.items():
        for layout, change in LAYOUTS.items():
            changed = change(array)
            give = partial(_as_it_is, changed)
            yield Cell("Arrays", shape, layout, give, give, {"channel_order": "bgr"})
        if array.ndim == 3 and array.shape[2] >= 3:
            swapped = array[..., [2, 1, 0, *range(3, array.shape[2])]]
            yield _of_array("Arrays", shape, "RGB", swapped, array, channel_order="rgb")
        if array.dtype == np.uint16:
            yield _of_array("Arrays", shape, "12 bits", array >> 4, array, bit_depth=12)
    others: dict[str, Pixels] = {
        "(h, w, 3) uint16, big-endian": DEEP.astype(">u2"),
        "(h, w, 3) float32": BGR.astype(np.float32) / 255,
        "(h, w, 3) int16": BGR.astype(np.int16),
        "(h, w) bool": BGR[..., 0] > 100,
        "(3, h, w)": BGR.transpose(2, 0, 1),
        "(1, h, w, 3)": BGR[None],
        "(h, w, 5)": np.dstack([BGR, alpha, alpha]),
        "(0, w, 3)": BGR[:0],
        "(w,)": BGR[0, :, 0],
    }
    for shape, array in others.items():
        yield _of_array("Arrays", shape, "C order", array)


def _as_it_is(array: Pixels) -> Pixels:
    return array


def cells(folder: Path) -> list[Cell]:
    """All of them. The files that they read are written into `folder`."""
    return [*files(folder), *orientations(folder), *modes(), *arrays()]


# --- damage -----------------------------------------------------------------------------------


def _photo(kind: str, **options: Any) -> bytes:
    noise = np.random.default_rng(3).normal(0, 6, (240, 320, 3))
    smooth = np.asarray(RGB.resize((320, 240), Image.Resampling.BICUBIC), np.float64)
    return encode(Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)), kind, **options)


DAMAGED = {
    "JPEG": _photo("JPEG", quality=90),
    "JPEG, progressive": _photo("JPEG", quality=90, progressive=True),
    "JPEG with restarts": _photo("JPEG", quality=90, restart_marker_blocks=20),
    "PNG": _photo("PNG"),
    "TIFF, deflate": _photo("TIFF", compression="tiff_adobe_deflate"),
    "TIFF, LZW": _photo("TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": _photo("TIFF", compression="jpeg"),
    "TIFF, not compressed": _photo("TIFF"),
    "GIF": _photo("GIF"),
    "WebP": _photo("WEBP", quality=90),
    "WebP, lossless": _photo("WEBP", lossless=True),
    "AVIF": _photo("AVIF", quality=90),
    "HEIC": ALL["heic"],
    "BMP": _photo("BMP"),
}
ENDS = {"JPEG": b"\xff\xd9", "GIF": b"\x3b"}
TRIES = 10


def _cut(encoded: bytes, at: int, end: bytes) -> bytes:
    return encoded[:at]


def _cut_and_ended(encoded: bytes, at: int, end: bytes) -> bytes:
    return encoded[:at] + end


def _lost(encoded: bytes, at: int, end: bytes) -> bytes:
    return encoded[:at] + encoded[at + 500 :]


def _zeroed(encoded: bytes, at: int, end: bytes) -> bytes:
    return encoded[:at] + bytes(500) + encoded[at + 500 :]


def _flipped(encoded: bytes, at: int, end: bytes) -> bytes:
    return encoded[:at] + bytes((encoded[at] ^ 16,)) + encoded[at + 1 :]


DAMAGES: dict[str, Callable[[bytes, int, bytes], bytes]] = {
    "cut short": _cut,
    "cut, and ended by a marker": _cut_and_ended,
    "500 bytes lost": _lost,
    "500 bytes zeroed": _zeroed,
    "1 bit flipped": _flipped,
}


def refused(encoded: bytes, damage: Callable[[bytes, int, bytes], bytes], end: bytes) -> int:
    """How many of TRIES damaged files are refused, the place of the damage being another each time.
    Those whose picture is unharmed count too.
    """
    whole = decode.decode(encoded, LIMITS).pixels
    seen = 0
    for number in range(TRIES):
        at = len(encoded) // 4 + number * len(encoded) // (2 * TRIES)
        try:
            pixels = decode.decode(damage(encoded, at, end), LIMITS).pixels
        except YolopoolError:
            seen += 1
        else:
            seen += pixels.shape == whole.shape and bool((pixels == whole).all())
    return seen


def damage_table() -> str:
    lines = [f"| Damaged files | {' | '.join(DAMAGES)} |", f"|---{'|---' * len(DAMAGES)}|"]
    for name, encoded in DAMAGED.items():
        end = ENDS.get(re.split("[ ,]", name)[0], b"")
        counts = [
            f"{refused(encoded, damage, end)}" if end or damage is not _cut_and_ended else ""
            for damage in DAMAGES.values()
        ]
        lines.append(f"| {name} | {' | '.join(counts)} |")
    return "\n".join(lines) + "\n"


# --- the page ---------------------------------------------------------------------------------


def outcomes() -> list[tuple[Cell, str]]:
    """Every cell with what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        return [(cell, outcome(cell)) for cell in cells(Path(folder))]


def table(found: Sequence[tuple[Cell, str]]) -> str:
    same = sum(said == "0" for _, said in found)
    refused = sum(said.isupper() for _, said in found)
    notes: list[str] = []
    lines = [
        f"{len(found)} cells: {same} without any difference, {refused} refused for the reason "
        f"shown, {len(found) - same - refused} that differ as the notes say.",
    ]
    for group in dict.fromkeys(cell.group for cell, _ in found):
        of_group = [(cell, said) for cell, said in found if cell.group == group]
        columns = list(dict.fromkeys(cell.column for cell, _ in of_group))
        lines += ["", f"| {group} | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
        for row in dict.fromkeys(cell.row for cell, _ in of_group):
            texts = []
            for column in columns:
                place = [one for one in of_group if (one[0].row, one[0].column) == (row, column)]
                texts.append(_shown(place, notes))
            lines.append(f"| {row} | {' | '.join(texts)} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, start=1))]
    return "\n".join(lines) + "\n"


def _levels(said: str) -> int:
    """The levels of an outcome such as "248 from the path"; of one without, more than any."""
    number = said.partition(" ")[0]
    return int(number) if number.isdigit() else 256


def _shown(place: Sequence[tuple[Cell, str]], notes: list[str]) -> str:
    """What came of the cells of one row and column, the worst if they differ, and its note."""
    if not place:
        return ""
    cell, said = max(place, key=lambda one: _levels(one[1]))
    text = said if len({said for _, said in place}) == 1 else f"up to {said}"
    why = EXPLAINED.get((cell.row, cell.column))
    if why is None:
        return text
    if why not in notes:
        notes.append(why)
    return f"{text} ({notes.index(why) + 1})"


def page(found: Sequence[tuple[Cell, str]]) -> str:
    """The page, with the tables between its marks."""
    part = f"{BEGIN}{table(found)}\n{damage_table()}{END}"
    return re.sub(f"{BEGIN}.*{END}", lambda _: part, PAGE.read_text(), flags=re.DOTALL)


def main() -> None:
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(outcomes()))
    else:
        sys.stdout.write(f"{table(outcomes())}\n{damage_table()}")


if __name__ == "__main__":
    main()
