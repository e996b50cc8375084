"""Messages between the device process and an I/O process are read as they were packed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.arrays import U8
from worker.io_processes import protocol
from worker.preprocess.letterbox import Letterboxed
from worker.preprocess.prepared import Prepared, PreprocessSpec
from yolopool.vocabulary import ShapePolicy

SIDES = st.tuples(st.integers(1, 64), st.integers(1, 64))
SECONDS = st.floats(0, 1e6)


@given(
    st.integers(32, 4096), st.sampled_from([32, 64]), st.sampled_from(ShapePolicy), st.booleans()
)
def test_specs(image_size: int, stride: int, policy: ShapePolicy, accept_damaged: bool) -> None:
    spec = PreprocessSpec(image_size, stride, policy, accept_damaged=accept_damaged)
    assert protocol.read_spec(protocol.pack_spec(spec)) == spec


@given(st.none() | SECONDS, st.binary())
def test_requests(remaining_s: float | None, request: bytes) -> None:
    assert protocol.read_ask(protocol.pack_ask(remaining_s, request)) == (remaining_s, request)


@given(SIDES, SIDES, SIDES, SIDES, SECONDS, SECONDS, st.integers(0, 2**40), st.text())
def test_pixels_are_where_they_are_said_to_be(
    shape: tuple[int, int],
    original: tuple[int, int],
    whole: tuple[int, int],
    offset: tuple[int, int],
    decode_s: float,
    preprocess_s: float,
    at: int,
    damage: str,
) -> None:
    image = np.arange(shape[0] * shape[1] * 3).astype(np.uint8).reshape(*shape, 3)
    sent = Prepared(Letterboxed(image, original), whole, offset, decode_s, preprocess_s, damage)

    def pixels(offset: int, size_bytes: int) -> U8:
        assert (offset, size_bytes) == (at, image.nbytes)
        return image.reshape(-1)

    got = protocol.read_prepared(protocol.pack_prepared(sent, at), pixels)
    np.testing.assert_array_equal(got.letterboxed.image, image)
    assert got.letterboxed.original_shape == original
    assert (got.image_shape, got.offset) == (whole, offset)
    assert (got.decode_s, got.preprocess_s) == (decode_s, preprocess_s)
    assert damage.startswith(got.damage[:50])


def test_settings() -> None:
    settings = protocol.IoSettings("::1", 7, 2, 64, 10, 20, 30, "INFO", log_json=False)
    assert protocol.read_settings(protocol.pack_settings(settings)) == settings
