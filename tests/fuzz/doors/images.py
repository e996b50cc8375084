"""Image files, as a worker prepares them: every format, whole, cropped, in tiles, grey, damaged."""

import time
from pathlib import Path

from tests.fuzz.target import Target, own_loop, reason_of
from tests.unit.worker.preprocess.encoded_images import ALL
from worker.preprocess import arena
from worker.preprocess.arena import Arena
from worker.preprocess.decode import ImageLimits
from worker.preprocess.prepared import PreprocessSpec
from worker.preprocess.preprocessor import Preprocessor
from worker.preprocess.tiling import Tiling
from yolopool.errors import YolopoolError
from yolopool.vocabulary import ShapePolicy

# The time of a decoder grows with the pixels that a header may ask for.
MAX_PIXELS = 2_000_000
LIMITS = ImageLimits(max_bytes=4 * 1024**2, max_pixels=MAX_PIXELS)
_ARENA_BYTES = 256 * 1024**2


class Decoding:
    """The first byte says what is wanted of the image that the others are."""

    def __init__(self, folder: Path) -> None:
        self.loop = own_loop()
        memory = Arena(arena.private(_ARENA_BYTES))
        self._preprocessor = Preprocessor(1, 4, LIMITS, memory, time.monotonic)
        self._preprocessor.start()

    def run(self, data: bytes) -> str:
        wish = data[0] if data else 0
        spec = PreprocessSpec(
            (96, 160) if wish & 16 else 128,
            32,
            ShapePolicy.SQUARE if wish & 1 else ShapePolicy.RECT,
            crop=bool(wish & 2),
            tiling=Tiling(48, 0.2) if wish & 4 else None,
            accept_damaged=bool(wish & 8),
            channels=1 if wish & 32 else 3,
        )
        region = (1.5, 2.0, 60.0, 40.0) if wish & 64 else None
        work = self._preprocessor.prepare(data[1:], region, spec)
        try:
            prepared = self.loop.run_until_complete(work)
        except YolopoolError as error:
            return reason_of(error)
        height, width = prepared.image_shape
        assert height * width <= MAX_PIXELS, f"{height} x {width} pixels passed the limit"
        return "damaged" if prepared.damage else "ok"

    def close(self) -> None:
        self._preprocessor.close()


def _seeds() -> list[bytes]:
    wishes = (0, 8, 1 | 32, 2, 4 | 8, 16 | 64, 8 | 32)
    images = sorted(ALL.items())
    return [bytes([wishes[at % len(wishes)]]) + image for at, (_, image) in enumerate(images)]


TARGETS = {
    "images": Target(
        name="images",
        about="image files of every format, decoded, cropped, tiled and letterboxed",
        open=Decoding,
        seeds=_seeds,
        share=100,
        words=(
            b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda",
            b"\xff\xdb", b"\xff\xdd", b"\xff\xe1", b"Exif\0\0", b"IHDR", b"IDAT", b"PLTE", b"tRNS",
            b"acTL", b"fcTL", b"fdAT", b"IEND", b"RIFF", b"VP8 ", b"VP8L", b"VP8X", b"ANMF",
            b"ALPH", b"II*\0", b"MM\0*", b"II+\0", b"GIF89a", b"ftyp", b"meta", b"iloc", b"iprp",
            b"ispe", b"hvcC", b"av1C", b"mdat", b"BM",
        ),
        max_bytes=32 * 1024,
        examples=250,
    )
}  # fmt: skip
